"""The loop around the handler, in place of AWS's: takes an event from the Runtime API, hands it over, posts the answer, one at a time.

It speaks HTTP over one kept connection by hand, because `http.client` parses every response's head like a letter's: what is measured is to
be the handler. It therefore wants a Runtime API that keeps the connection and names the length of what it answers.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass

ROOT = "/2018-06-01/runtime/invocation"


@dataclass
class Context:
    """What Lambda tells a handler of itself and its invocation, as far as loggers ask for it."""

    aws_request_id: str
    invoked_function_arn: str
    function_name: str = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "intake")
    memory_limit_in_mb: str = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")


class RuntimeApi:
    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self._connection = socket.create_connection((host, int(port or 80)))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = self._connection.makefile("rb")
        self._host = address

    def request(self, method: str, resource: str, body: bytes | None = None) -> tuple[dict[str, str], bytes]:
        length = "" if body is None else f"content-length: {len(body)}\r\n"
        head = f"{method} {ROOT}{resource} HTTP/1.1\r\nhost: {self._host}\r\n{length}\r\n"
        self._connection.sendall(head.encode() + (body or b""))
        if not self._received.readline():
            # Lambda ends a process whose Runtime API has gone; here nobody else does.
            raise SystemExit(0)
        headers = {}
        while line := self._received.readline().rstrip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if "content-length" not in headers:
            raise SystemExit(f"a response of the Runtime API without its length: {headers}")
        return headers, self._received.read(int(headers["content-length"]))


def run() -> None:
    # As on Lambda, the handler's module is loaded before the first event is asked for.
    from handler import handler

    runtime = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        headers, body = runtime.request("GET", "/next")
        request_id = headers["lambda-runtime-aws-request-id"]
        context = Context(request_id, headers.get("lambda-runtime-invoked-function-arn", ""))
        try:
            resource, answer = "response", handler(json.loads(body), context)
        except Exception as error:
            resource, answer = "error", {"errorType": type(error).__name__, "errorMessage": str(error)}
        runtime.request("POST", f"/{request_id}/{resource}", json.dumps(answer).encode())


if __name__ == "__main__":
    run()
