"""Staged transfers on Forge: the platform is answered once records are in a bucket of the partner's, and a second phase brings them into the target."""

import base64
import json
import time

import pytest

from harness import Declaration, ForgeApp, Killer
from landfall_local import receipt
from receiver import SECRET, Receiver

BUCKET = "landfall-stage"
IMPORTS = """
[[imports]]
label = "*"
natural_key = "/id"

[[imports.mappings]]
pointer = "/project"
namespace = "jira/classic:project"

[[imports.mappings]]
pointer = "/author"
namespace = "identity:user"
key_prefix = "jira.userkey/"
"""
# As in test_forge: a quarter of an hour in some seconds.
WINDOW_S = 15.0
# What the receiver takes for a batch: with it a file's import lasts far longer than a window.
SLOW_S = 0.5


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def staged(make_app, world, receiver) -> ForgeApp:
    """The app on Forge with a stage before its receiver, on a platform whose window is some seconds."""
    return deployed(make_app, world, receiver)


def deployed(make_app, world, receiver, imports: str = IMPORTS, **clocks: str) -> ForgeApp:
    world.cloud.make_bucket(BUCKET)
    declaration = Declaration(
        forge=True,
        acknowledge="staged",
        sink=f'kind = "http"\nurl = "{receiver.url}"\ntimeout = "3s"',
        imports=imports,
        limits={"batch_records": 25},
        clocks={"forge_answer_by": "12s", "slice": "2s", "lease": "6s"} | clocks,
    )
    app = make_app(declaration, {"SinkSecret": SECRET, "SinkBucket": BUCKET})
    app.twin.switch(forge_window_ms=int(WINDOW_S * 1000))
    return app


def second_phase(app: ForgeApp, identifier: str, number: int = 2, within: float = 120):
    """Waits until a later phase is over, and returns it as we track it."""
    later = f"{identifier}+{number}"

    def look():
        tracked = app.tracked(later)
        return tracked if tracked and tracked.phase == "SETTLED" else app.sweep() and None

    tracked = app.wait(look, within, lambda: f"{later} isn't over: {app.tracked(later) and app.tracked(later).row}", 0.5)
    assert tracked.balanced, tracked.counts
    return tracked


def receipt_of(app: ForgeApp, identifier: str, folder) -> dict:
    return receipt.write(folder, app.stack.receipt(app.tenant, identifier), app.stack.exceptions(app.tenant, identifier))


def test_one_file_that_takes_the_target_longer_than_a_window_is_migrated_nevertheless(staged, receiver, tmp_path):
    app = staged
    receiver.before_answer = lambda number: time.sleep(SLOW_S)
    # 40 batches of half a second each, where a window has 15 seconds and nothing else can be answered.
    plan = app.migrate({"label": "history.ndjson", "records": 1000})
    identifier = plan["transfer_id"]
    assert app.settled(identifier)["state"] == "SUCCESS", app.story(identifier)
    first = app.closed(identifier)
    assert len(receiver.applied) < 1000, "the platform was told before the target had everything"
    assert first.counts["applied"] == 1000
    assert first.message.startswith("Stored, not yet imported: 1000 records from 1 file.")
    assert any("counts as done" in line or "Stored, not yet imported" in line for line in app.logged(identifier)), app.logged(identifier)
    assert [message["answer"] for message in app.messages(identifier)] == ["SUCCESS"]

    before = receipt_of(app, identifier, tmp_path)
    assert before["staged"]["second_phase"] == "under_way"
    later = second_phase(app, identifier)
    assert later.verdict == "SUCCESS"
    assert later.message.startswith("Second phase complete: 1000 records from 1 file arrived.")
    assert len(receiver.applied) == 1000
    assert set(receiver.applied.values()) == {1}
    assert not receiver.refused

    after = receipt_of(app, identifier, tmp_path)
    assert after["staged"] == {
        "second_phase": "over",
        "transfer": f"{identifier}+2",
        "status": "SUCCESS",
        "records": {"read": 1000, "applied": 1000, "unchanged": 0, "held": 0, "rejected": 0},
    }
    of_phase = receipt_of(app, f"{identifier}+2", tmp_path)
    assert (of_phase["phase_of"], of_phase["differences"]) == (identifier, [])
    explained = app.explained(identifier)
    assert explained["second_phase"]["verdict"] == "healthy"
    assert any("is imported now" in line["what"] for line in explained["timeline"])


def test_a_second_phase_whose_worker_is_killed_applies_every_record_once(staged, receiver):
    app = staged
    plan = app.migrate(
        {"label": "a-{n}-of-{of}.ndjson", "copies": 3, "records": 200},
        {"label": "b.json.gz", "format": "json", "records": 150, "gzip": True},
        manifest=True,
    )
    identifier = plan["transfer_id"]
    assert app.settled(identifier)["state"] == "SUCCESS", app.story(identifier)
    app.closed(identifier)
    with Killer(app, lambda: len(receiver.batches) > 10) as killer:
        later = second_phase(app, identifier)
    assert killer.killed
    assert later.verdict == "SUCCESS", later.message
    assert later.counts["applied"] == len(receiver.applied) == 750
    assert set(receiver.applied.values()) == {1}
    assert not receiver.refused


def test_what_the_target_refuses_is_told_to_the_operator_and_can_be_repeated(staged, receiver, tmp_path):
    app = staged
    receiver.judge = lambda record: ("rejected", "the estimate is odd") if record["id"].endswith("7") else ("applied", None)
    identifier = app.migrate({"label": "cards.ndjson", "records": 100})["transfer_id"]
    assert app.settled(identifier)["state"] == "SUCCESS"
    later = second_phase(app, identifier)
    assert (later.verdict, later.counts["rejected"]) == ("INCOMPLETE", 10)
    assert "The app's operator can repeat this phase" in later.message
    assert any("LF-SECOND-PHASE" in line for line in app.log("processor") + app.log("sweeper"))
    assert "repeats the second phase" in app.explained(identifier)["second_phase"]["verdict"]
    found = receipt_of(app, f"{identifier}+2", tmp_path)
    assert found["exceptions"]["rejected"] == 10

    receiver.judge = lambda record: ("applied", None)
    assert app.stack.repeat_second_phase(app.tenant, identifier) == f"{identifier}+3"
    again = second_phase(app, identifier, number=3)
    assert again.verdict == "SUCCESS", again.message
    assert (again.counts["applied"], again.counts["unchanged"]) == (10, 90)
    assert set(receiver.applied.values()) == {1}


def test_a_record_that_could_not_be_stored_fails_the_migration_and_its_re_run_applies_only_that(staged, receiver):
    app = staged
    app.twin.call("PUT", "/control/mappings", {"namespace": "identity:user", "holes": ["jira.userkey/nobody"]})
    content = "".join(json.dumps({"id": str(n), "author": "nobody" if n == 3 else None, "project": None}) + "\n" for n in range(10))
    file = {"label": "few.ndjson", "content_base64": base64.b64encode(content.encode()).decode()}
    identifier = app.migrate(file)["transfer_id"]
    transfer, _ = app.failed(identifier)
    assert transfer.counts["rejected"] == 1
    later = second_phase(app, identifier)
    assert later.counts["applied"] == 9
    app.twin.call("PUT", "/control/mappings", {"namespace": "identity:user", "values": {"jira.userkey/nobody": "somebody"}})
    rerun = app.twin.rerun(identifier)["transfer_id"]
    assert app.settled(rerun)["state"] == "SUCCESS", app.story(rerun)
    later = second_phase(app, rerun)
    assert (later.counts["applied"], later.counts["unchanged"]) == (1, 9), later.message


def test_a_cancelled_migration_has_no_second_phase(staged, receiver):
    app = staged
    app.twin.switch(store_bytes_per_second=20_000)
    identifier = app.migrate({"label": "short.ndjson", "records": 20}, {"label": "long.ndjson", "records": 3000})["transfer_id"]
    ended = lambda: "ENDED" in [row["state"] for row in app.tracking.files(app.tenant, identifier)]  # noqa: E731
    app.wait(ended, 30, lambda: app.story(identifier))
    app.twin.post(f"/control/transfers/{identifier}/cancel", {"force": True})
    transfer = app.closed(identifier, within=40)
    assert transfer.row["verdict_cause"] == "cancelled"
    for _ in range(3):
        app.sweep()
    assert app.tracked(f"{identifier}+2") is None
    assert not receiver.applied


def test_a_held_record_that_an_earlier_attempt_had_stored_is_stored_again_and_arrives(make_app, world, receiver):
    # Not of users: of these an earlier attempt's mappings are remembered.
    project = 'namespace = "jira/classic:project"'
    app = deployed(make_app, world, receiver, IMPORTS.replace(project, project + '\non_miss = "hold"'), hold_again_after="4s")
    known = lambda **wish: app.twin.call("PUT", "/control/mappings", {"namespace": "jira/classic:project"} | wish)  # noqa: E731
    late, never = {"777701": "late-1"}, {"777702": "never-1"}
    known(values=late)
    known(holes=sorted(never))
    projects = {3: "777701", 4: "777702"}
    content = "".join(json.dumps({"id": str(n), "author": None, "project": projects.get(n)}) + "\n" for n in range(10))
    few = {"label": "few.ndjson", "content_base64": base64.b64encode(content.encode()).decode()}
    # Stored by the first attempt, and not in the target: the receiver doesn't take it.
    receiver.judge = lambda record: ("rejected", "not yet") if record["id"] == "3" else ("applied", None)
    first = app.migrate(few)["transfer_id"]
    assert app.failed(first)[0].counts["held"] == 1
    assert second_phase(app, first).counts["rejected"] == 1
    receiver.judge = lambda record: ("applied", None)
    # The re-run holds both records first; their mappings come before they are asked again.
    known(holes=sorted(late))
    rerun = app.twin.rerun(first)["transfer_id"]
    held = lambda: [row for row in app.tracking.files(app.tenant, rerun) if "again_at" in row]  # noqa: E731
    app.wait(held, 30, lambda: app.story(rerun))
    known(values=late | never)
    assert app.settled(rerun)["state"] == "SUCCESS", app.story(rerun)
    later = second_phase(app, rerun)
    assert (later.counts["applied"], later.counts["unchanged"]) == (2, 8), later.counts
    assert len(receiver.applied) == 10
