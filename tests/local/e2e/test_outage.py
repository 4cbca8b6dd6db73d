"""Intake while DynamoDB or SQS, or both, can't be reached: refused at once, or hanging without an answer."""

from __future__ import annotations

import select
import socket
import threading

import pytest

ANSWER_SECONDS = 5.0


class Wire:
    """A wire between intake and one service of the cloud that can be cut, or left hanging."""

    def __init__(self, port: int):
        self._to = port
        self.mode = "open"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._to)) as far:
            ends = {near: far, far: near}
            while True:
                readable, _, _ = select.select(list(ends), [], [], 0.05)
                if self.mode == "cut":
                    return
                if self.mode == "hang":
                    continue
                for end in readable:
                    try:
                        content = end.recv(65536)
                        if not content:
                            return
                        ends[end].sendall(content)
                    except OSError:
                        return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def wired(make_app):
    """The app, with a wire to each of the two services; its tenant is warm."""
    app = make_app(suffix="-wired", parameters={"LogLevel": "info,landfall_intake=debug"})
    wires = {"dynamodb": Wire(app.world.cloud.port), "sqs": Wire(app.world.cloud.port)}
    functions = app.world.cloud.client("lambda")
    name = app.stack.outputs["IntakeFunctionName"]
    kept = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    wired = {f"AWS_ENDPOINT_URL_{service.upper()}": wire.url for service, wire in wires.items()}
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": kept | wired})
    app.wires = wires
    assert app.post(app.event()).status == 200
    yield app
    for wire in wires.values():
        wire.mode = "open"
        wire.close()
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": kept})


@pytest.mark.parametrize("mode", ["cut", "hang"])
@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
def test_a_genuine_event_is_taken_and_handled_with_one_of_the_two_gone(wired, service, mode):
    wired.wires[service].mode = mode
    event = wired.event()
    answer = wired.post(event)
    assert (answer.status, answer.seconds < ANSWER_SECONDS) == (200, True), answer
    wired.wires[service].mode = "open"
    wired.wait(lambda: wired.sweep() and wired.tracked(event["transferId"]), 20, "the event was lost", 0.5)


@pytest.mark.parametrize("mode", ["cut", "hang"])
def test_an_event_is_not_taken_with_both_gone(wired, mode):
    for wire in wired.wires.values():
        wire.mode = mode
    answer = wired.post(wired.event())
    assert (answer.status, answer.seconds < ANSWER_SECONDS) == (503, True), answer
