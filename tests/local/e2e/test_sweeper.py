"""What is stuck ends FAILED early enough for a re-run; what is lost comes back; what is half-done is finished."""

import concurrent.futures
import time

from harness import Declaration, Killer

TWO_FILES = {"label": "issues-{n}-of-{of}.ndjson", "copies": 2, "records": 200}
# Messages come again within seconds, so that five deliveries don't take a minute.
QUICK = {"ProcessorTimeout": "4", "EventsVisibilityTimeout": "4", "ImportsVisibilityTimeout": "4"}


def test_a_silent_exporter_is_settled_failed_with_the_reason_and_the_next_step(make_app):
    app = make_app(Declaration().with_clocks(export_silence="4s"))
    plan = app.migrate({"label": "pages-{n}-of-{of}.ndjson", "copies": 4, "records": 200}, manifest=True, stop_export_after=2)
    transfer, message = app.failed(plan["transfer_id"])
    assert transfer.counts["applied"] == 400
    assert "re-run" in message[:200].lower()
    assert app.finals(plan["transfer_id"]) == {"FAILED"}
    explained = app.explained(plan["transfer_id"])
    assert explained["verdict"].startswith("needs action: the admin re-runs the app migration by "), explained
    assert "needs_action" in explained["health"]
    lines = explained["timeline"]
    assert [line["at_ms"] for line in lines] == sorted(line["at_ms"] for line in lines)
    told = [line["what"] for line in lines]
    assert "saw the transfer for the first time" in told
    assert "stopping: the server app is silent" in told
    assert any(what.startswith("decided FAILED because of exporter_silent: ") for what in told)
    assert "settled by our verdict: FAILED" in told


def test_a_transfer_that_was_never_seen_is_explained_as_such_and_nothing_is_stored(app):
    identifier = "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1009"
    explained = app.explained(identifier)
    assert explained["timeline"] == []
    assert explained["verdict"].startswith("waiting for its first event since ")
    assert app.tracked(identifier) is None


def test_a_transfer_without_any_file_is_settled_failed_soon_and_the_message_says_so(make_app):
    app = make_app(Declaration(no_file_period="2s"))
    transfer, message = app.failed(app.migrate()["transfer_id"])
    assert transfer.row["verdict_cause"] == "no_file"
    assert message.startswith("The server app uploaded no file since ")
    assert "re-run" in message[:200].lower()


def test_a_manifest_that_names_no_file_is_a_success_at_once(app):
    transfer = app.succeeded(app.migrate(manifest=True)["transfer_id"])
    assert transfer.row["verdict_cause"] == "complete"
    assert transfer.message.startswith("Nothing to migrate")


def test_a_quiet_exporter_within_its_time_is_waited_for_and_the_admin_is_told(app):
    plan = app.migrate({"label": "pages-{n}-of-{of}.ndjson", "copies": 3, "records": 100}, manifest=True, stop_export_after=2)
    app.wait(
        lambda: app.sweep() and any("waiting for" in (call["message"] or "").lower() for call in app.platform(plan["transfer_id"])["progress"]),
        20,
        lambda: app.story(plan["transfer_id"]),
        0.5,
    )
    assert app.platform(plan["transfer_id"])["state"] == "IN_PROGRESS"


def test_our_own_work_without_progress_is_settled_failed(make_app):
    app = make_app(Declaration().with_clocks(work_stale_after="8s"))
    app.twin.fault(target="rest.data_url", kind="status", status=500)
    plan = app.migrate(TWO_FILES, manifest=True)
    _, message = app.failed(plan["transfer_id"])
    assert "re-run" in message[:200].lower()


def test_a_transfer_that_is_too_old_is_settled_failed_whatever_happens(make_app):
    app = make_app(Declaration().with_clocks(hard_deadline="8s", export_silence="7s", work_stale_after="7s"))
    plan = app.migrate({"label": "endless-{n}-of-{of}.ndjson", "copies": 40, "records": 20}, manifest=True, interval_ms=1000)
    _, message = app.failed(plan["transfer_id"])
    assert "re-run" in message[:200].lower()


def test_a_file_that_kills_every_worker_becomes_a_verdict(make_app):
    app = make_app(Declaration().with_clocks(slice="1s", lease="2s"), QUICK)
    # Every worker that takes the file up waits for a store that does not answer, and is killed there.
    app.twin.fault(target="store", kind="slow", delay_ms=20_000)
    plan = app.migrate({"label": "poison.ndjson", "records": 200}, manifest=False)
    identifier = plan["transfer_id"]

    def held() -> bool:
        return any(row["state"] == "OPEN" and row.get("lease_owner") for row in app.tracking.files(app.tenant, identifier))

    with Killer(app, held, limit=40, interval=0.4) as killer:
        _, message = app.failed(identifier, within=120)
    assert len(killer.killed) >= 5
    assert message


def test_a_dead_lettered_message_becomes_a_verdict(app):
    with app.mappings_off():
        plan = app.migrate(TWO_FILES, manifest=True)
        app.twin.get(f"/control/transfers/{plan['transfer_id']}", wait_for="exported", timeout_ms=10_000)
        app.wait(lambda: app.waiting("ImportJobs") >= 3, 10, "no import was queued")
        queues = app.world.cloud.client("sqs")
        # As after five deliveries: the message lies in the dead-letter queue and nowhere else.
        found = queues.receive_message(QueueUrl=app.queue("ImportJobs"), MaxNumberOfMessages=1)["Messages"][0]
        queues.send_message(QueueUrl=app.queue("ImportJobsDeadLetter"), MessageBody=found["Body"])
        queues.delete_message(QueueUrl=app.queue("ImportJobs"), ReceiptHandle=found["ReceiptHandle"])
    platform = app.settled(plan["transfer_id"], within=90)
    assert platform["state"] in ("FAILED", "INCOMPLETE"), app.story(plan["transfer_id"])
    app.closed(plan["transfer_id"])
    assert app.waiting("ImportJobsDeadLetter") == 0


def test_a_dead_letter_that_nobody_can_read_is_kept_for_a_person_and_stops_no_sweep(make_app):
    app = make_app(parameters={"LogRetentionDays": "3"})
    queues = app.world.cloud.client("sqs")
    for name in ("TransferEventsDeadLetter", "ImportJobsDeadLetter"):
        queues.send_message(QueueUrl=app.queue(name), MessageBody='{"v":99,"tenant":"t","task":"unheard-of"}')
    plan = app.migrate(TWO_FILES, manifest=True)
    app.succeeded(plan["transfer_id"])
    app.sweep()
    assert app.waiting("TransferEventsDeadLetter") == app.waiting("ImportJobsDeadLetter") == 1
    assert any("LF-UNREADABLE-LETTER" in line for line in app.log("sweeper"))


def test_a_settlement_that_the_platform_could_not_take_is_repeated_unchanged(app):
    app.twin.fault(target="rest.progress", kind="status", status=503)
    plan = app.migrate(TWO_FILES, manifest=True)
    identifier = plan["transfer_id"]
    app.wait(lambda: (row := app.tracked(identifier)) and row.phase == "SETTLING", 30, lambda: app.story(identifier))
    decided = app.tracked(identifier)
    time.sleep(1)
    app.twin.heal()
    transfer = app.succeeded(identifier)
    assert (transfer.verdict, transfer.message) == ("SUCCESS", decided.message)
    assert app.finals(identifier) == {"SUCCESS"}
    assert app.settlements(identifier) == 1


def test_a_settlement_whose_answer_got_lost_is_not_sent_as_another_verdict(app):
    app.twin.switch(settled_event="never")
    plan = app.migrate(TWO_FILES, manifest=True, interval_ms=700)
    # Progress may still pass; the answer to the settling call gets lost, and so does the next one's.
    app.twin.fault(target="rest.progress", kind="lose_answer", next=4)
    transfer = app.succeeded(plan["transfer_id"])
    assert app.finals(plan["transfer_id"]) == {"SUCCESS"}
    assert app.settlements(plan["transfer_id"]) == 1
    assert transfer.settled_by in ("app", "platform")


def test_a_transfer_that_was_never_announced_is_found_and_imported(app):
    app.twin.fault(target="events", kind="drop", site=app.site)
    plan = app.migrate(TWO_FILES, manifest=True)
    assert app.succeeded(plan["transfer_id"]).counts["applied"] == 400


def test_a_file_that_was_never_announced_is_found_and_imported(app):
    app.twin.fault(target="events", kind="drop", site=app.site, event_type="app-data-uploaded", next=2)
    plan = app.migrate(TWO_FILES, manifest=True)
    transfer = app.succeeded(plan["transfer_id"])
    assert (transfer.files_known, transfer.counts["applied"]) == (3, 400)


def test_a_listener_that_failed_before_any_file_is_settled_failed(app):
    plan = app.migrate(
        TWO_FILES, listener_error={"exception_type": "java.lang.IllegalStateException", "stack_trace": "at x", "after_files": 0}
    )
    transfer, message = app.failed(plan["transfer_id"])
    assert transfer.counts["read"] == 0
    assert "re-run" in message[:300].lower()


def test_many_sweepers_at_once_send_one_verdict(make_app):
    app = make_app(Declaration().with_clocks(export_silence="4s"))
    plan = app.migrate({"label": "p-{n}-of-{of}.ndjson", "copies": 3, "records": 50}, manifest=True, stop_export_after=1)
    deadline = time.monotonic() + 40
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        while app.platform(plan["transfer_id"])["state"] == "IN_PROGRESS" and time.monotonic() < deadline:
            list(pool.map(lambda _: app.sweep(), range(4)))
    app.failed(plan["transfer_id"])
    assert app.settlements(plan["transfer_id"]) == 1


def test_the_schedule_runs_the_sweeper_by_itself(make_app):
    app = make_app(Declaration().with_clocks(export_silence="4s"), {"SweepSchedule": "rate(1 minute)"})
    plan = app.migrate({"label": "p-{n}-of-{of}.ndjson", "copies": 3, "records": 50}, manifest=True, stop_export_after=1)
    # Two rounds: a verdict may take one to be decided and one to be carried out.
    platform = app.settled(plan["transfer_id"], within=200, sweeping=None)
    assert platform["state"] == "FAILED", app.story(plan["transfer_id"])
