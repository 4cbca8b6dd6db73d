"""Migrations on Forge: nobody settles them, the message of each file is answered, and the platform draws the conclusion."""

import json
import time

import pytest

from harness import App, Declaration, ForgeApp
from landfall_local.twin import FORGE_EVENTS, FORGE_TOKEN
from test_logs import all_secrets, betrayal

FORGE = Declaration(forge=True)
FILES = {"label": "cards-{n}-of-{of}.ndjson", "copies": 5, "records": 300}

# A quarter of an hour in some seconds: the platform's window, and when we answer within it. As on AWS the second is four fifths of the first.
WINDOW_S = 15.0
ANSWER_BY_S = 12.0
SCALED = FORGE.with_clocks(forge_answer_by=f"{ANSWER_BY_S:.0f}s")


# A quarter of this is what is kept of a token for the last answers.
SHORT_TOKENS = FORGE.with_clocks(forge_answer_by="40s", call_timeout="2s")


@pytest.fixture
def forge(make_app) -> ForgeApp:
    """The app on Forge."""
    return make_app(FORGE)


@pytest.fixture
def scaled(make_app) -> ForgeApp:
    """The app on Forge, on a platform whose window is some seconds."""
    app = make_app(SCALED)
    app.twin.switch(forge_window_ms=int(WINDOW_S * 1000))
    return app


def answers(app: ForgeApp, identifier: str) -> list[tuple[str | None, int]]:
    """How each message was answered, and how often."""
    return [(message["answer"], message["answers"]) for message in app.messages(identifier)]


def strictest_silence_s(app: ForgeApp, identifier: str) -> float:
    """The longest window if only an answer SUCCESS begins another, and no upload does; the first begins with the first message."""
    messages = app.messages(identifier)
    begun = sorted(message["answered_ms"] for message in messages if message["answer"] == "SUCCESS")
    instants = [min(message["uploaded_ms"] for message in messages), *begun]
    return max(later - earlier for earlier, later in zip(instants, instants[1:], strict=False)) / 1000


def long_file(seconds: int, bytes_per_second: int = 60_000) -> dict:
    """A file that takes so long to download."""
    return {"label": "history.ndjson", "records": seconds * bytes_per_second // 300}


def test_a_migration_of_several_files_arrives_whole_and_each_message_is_answered_once(forge):
    plan = forge.migrate(
        FILES,
        {"label": "checklists.json", "format": "json", "records": 400},
        {"label": "votes.ndjson.gz", "records": 500, "gzip": True},
        order="shuffled",
        parallel=4,
    )
    identifier = plan["transfer_id"]
    transfer = forge.succeeded(identifier)
    assert transfer.counts["applied"] == transfer.counts["read"] == 2400
    assert len(forge.records_by_key()) == 2400
    assert answers(forge, identifier) == [("SUCCESS", 1)] * 7
    assert (transfer.verdict, transfer.settled_by) == ("SUCCESS", "app")
    # Of a transfer that only answers settle, nothing is reported by the interface that is Connect's.
    assert forge.platform(identifier)["progress"] == []
    assert forge.platform(identifier)["settled_by"] == "platform"


def test_with_an_export_manifest_its_message_is_answered_as_well(forge):
    identifier = forge.migrate(FILES, manifest=True)["transfer_id"]
    transfer = forge.succeeded(identifier)
    assert answers(forge, identifier) == [("SUCCESS", 1)] * 6
    assert "by the export's manifest" in transfer.message


def test_both_flavours_are_served_by_one_stack_at_the_same_time(forge, world):
    connect = App(world, forge.stack, f"{forge.site}-connect")
    connect.install()
    plans = [(app, app.migrate(FILES, manifest=True)["transfer_id"]) for app in (forge, connect)]
    for app, identifier in plans:
        assert app.succeeded(identifier).counts["applied"] == 1500
        assert len(app.records_by_key()) == 1500
    assert forge.tenant != connect.tenant


@pytest.mark.parametrize("envelope", ["event", "payload"])
def test_an_event_one_level_down_is_understood(forge, envelope):
    forge.twin.switch(forge_envelope=envelope)
    assert forge.succeeded(forge.migrate(FILES)["transfer_id"]).counts["applied"] == 1500


def test_a_token_that_names_its_installation_by_contexts_is_understood(forge):
    forge.twin.switch(forge_fit_claims="contexts")
    assert forge.succeeded(forge.migrate(FILES)["transfer_id"]).counts["applied"] == 1500


def test_an_event_that_comes_five_times_is_answered_once(forge):
    forge.twin.fault(target="events", kind="duplicate", copies=4, site=forge.site)
    identifier = forge.migrate(FILES)["transfer_id"]
    assert forge.succeeded(identifier).counts["applied"] == 1500
    assert answers(forge, identifier) == [("SUCCESS", 1)] * 5


def test_one_long_file_is_carried_through_by_short_ones_and_no_window_is_exceeded(scaled):
    scaled.twin.switch(store_bytes_per_second=60_000)
    plan = scaled.migrate({"label": "short-{n}-of-{of}.ndjson", "copies": 10, "records": 20}, long_file(45), parallel=11)
    identifier = plan["transfer_id"]
    transfer = scaled.succeeded(identifier, within=120)
    platform = scaled.platform(identifier)
    silence = strictest_silence_s(scaled, identifier)
    assert platform["forge"]["longest_silence_ms"] <= WINDOW_S * 1000, scaled.story(identifier)
    assert silence <= WINDOW_S, scaled.story(identifier)
    # Otherwise it would have taken no window at all.
    assert silence >= ANSWER_BY_S * 0.9
    assert answers(scaled, identifier) == [("SUCCESS", 1)] * 11
    assert transfer.counts["applied"] == 200 + 9000


def test_one_long_file_alone_is_warned_about_and_ends_failed_before_the_platform_gives_it_up(scaled):
    scaled.twin.switch(store_bytes_per_second=20_000)
    identifier = scaled.migrate(long_file(60, 20_000))["transfer_id"]
    platform = scaled.settled(identifier, sweeping=0.5)
    assert platform["state"] == "FAILED", scaled.story(identifier)
    transfer = scaled.closed(identifier)
    assert transfer.row["verdict_cause"] == "unanswered"
    assert "smaller files" in transfer.message
    assert answers(scaled, identifier) == [("FAILED", 1)]
    kinds = [row["what"] for row in scaled.tracking.rows(scaled.tracking.partition(scaled.tenant, identifier), "LOG#")]
    assert "window_closes" in kinds
    assert any("smaller files" in line for line in scaled.logged(identifier)), scaled.logged(identifier)


def test_without_a_token_the_import_waits_says_so_and_goes_on_with_the_next_call(forge):
    forge.twin.switch(forge_system_token_with_events=False)
    identifier = forge.migrate(FILES)["transfer_id"]

    def waits() -> bool:
        forge.sweep()
        explained = forge.explained(identifier)
        said = [line["what"] for line in explained["timeline"]]
        return "token" in explained["verdict"] and any(what.startswith("waits for a token") for what in said)

    forge.wait(waits, 30, lambda: f"{forge.explained(identifier)['verdict']}\n{forge.story(identifier)}", 0.5)
    assert forge.platform(identifier)["state"] == "IN_PROGRESS"
    assert answers(forge, identifier) == [(None, 0)] * 5
    assert forge.twin.refresh_forge(forge.site)["status"] == 200
    assert forge.succeeded(identifier).counts["applied"] == 1500
    assert answers(forge, identifier) == [("SUCCESS", 1)] * 5


def test_an_import_outlives_its_token_as_long_as_the_schedule_brings_newer_ones(make_app):
    app = make_app(SHORT_TOKENS)
    app.twin.switch(forge_system_token_life_s=30, forge_refresh_interval_ms=8000, store_bytes_per_second=20_000)
    identifier = app.migrate({"label": "cards-{n}-of-{of}.ndjson", "copies": 8, "records": 1200})["transfer_id"]
    began = time.monotonic()
    assert app.succeeded(identifier, within=150).counts["applied"] == 9600
    assert time.monotonic() - began > 30, "no token had to be replaced"
    assert answers(app, identifier) == [("SUCCESS", 1)] * 8


def test_with_the_last_minutes_of_a_token_that_nothing_replaces_all_is_answered_failed(make_app):
    app = make_app(SHORT_TOKENS)
    app.twin.switch(forge_system_token_life_s=30, store_bytes_per_second=20_000)
    identifier = app.migrate({"label": "cards-{n}-of-{of}.ndjson", "copies": 2, "records": 3000})["transfer_id"]
    assert app.settled(identifier, sweeping=0.5)["state"] == "FAILED", app.story(identifier)
    assert app.closed(identifier).row["verdict_cause"] == "no_token"
    assert answers(app, identifier) == [("FAILED", 1)] * 2


def test_an_older_token_that_comes_late_does_not_replace_a_newer_one(forge):
    assert forge.call(FORGE_TOKEN, {}, forge.tokens(system_token={"expires_in_s": 3600})).status == 200
    assert forge.call(FORGE_TOKEN, {}, forge.tokens(system_token={"expires_in_s": 1})).status == 200
    time.sleep(1.5)
    forge.twin.switch(forge_system_token_with_events=False)
    assert forge.succeeded(forge.migrate(FILES)["transfer_id"]).counts["applied"] == 1500


def test_a_cancelled_migration_stops_and_answers_failed(forge):
    forge.twin.switch(store_bytes_per_second=20_000)
    identifier = forge.migrate({"label": "cards-{n}-of-{of}.ndjson", "copies": 3, "records": 3000})["transfer_id"]

    def at_work() -> bool:
        return [file["state"] for file in forge.tracking.files(forge.tenant, identifier)] == ["OPEN"] * 3

    forge.wait(at_work, 20, lambda: forge.story(identifier))
    forge.twin.post(f"/control/transfers/{identifier}/cancel", {"force": True})
    forge.wait(
        lambda: forge.sweep() and all(answer == "FAILED" for answer, _ in answers(forge, identifier)),
        30,
        lambda: forge.story(identifier),
        0.5,
    )
    transfer = forge.closed(identifier)
    assert transfer.row["verdict_cause"] == "cancelled"
    landed = len(forge.tenant_records())
    time.sleep(2)
    assert len(forge.tenant_records()) == landed


def test_a_file_that_cannot_be_read_is_answered_failed_and_the_others_success(forge):
    plan = forge.migrate(
        FILES,
        # It says that it is packed, by its first bytes, and isn't.
        {"label": "broken.ndjson.gz", "content_base64": "H4sIAAAAAAAAA2Jyb2tlbgAAAAA="},
    )
    identifier = plan["transfer_id"]
    platform = forge.settled(identifier)
    assert platform["state"] == "FAILED", forge.story(identifier)
    transfer = forge.closed(identifier)
    assert transfer.verdict == "INCOMPLETE"
    # The platform shows no message of ours; what came of it the admin reads in the migration's log.
    assert transfer.message in forge.logged(identifier)
    broken = next(file["s3_key"] for file in plan["files"] if file["label"] == "broken.ndjson.gz")
    found = {message["key"]: (message["answer"], message["answers"]) for message in forge.messages(identifier)}
    assert found.pop(broken) == ("FAILED", 1)
    assert list(found.values()) == [("SUCCESS", 1)] * 5


def test_a_failed_answer_that_ends_the_transfer_at_once_comes_last(forge):
    forge.twin.switch(forge_failed_message="at_once")
    plan = forge.migrate(FILES, {"label": "cut.ndjson", "records": 300, "bad_records": 3})
    identifier = plan["transfer_id"]
    assert forge.settled(identifier)["state"] == "FAILED", forge.story(identifier)
    forge.closed(identifier)
    assert sorted(answer for answer, _ in answers(forge, identifier)) == ["FAILED", *["SUCCESS"] * 5]


def test_a_file_whose_event_is_lost_is_found_and_imported_and_only_its_message_stays_open(forge):
    forge.twin.fault(target="events", kind="drop", site=forge.site, event_type="avi:ecosystem.migration:uploaded:app_data", next=1)
    identifier = forge.migrate(FILES)["transfer_id"]

    def all_that_can_be_is_done() -> bool:
        forge.sweep()
        answered = [answer for answer, _ in answers(forge, identifier)]
        return len(forge.records_by_key()) == 1500 and answered.count("SUCCESS") == 4

    forge.wait(all_that_can_be_is_done, 40, lambda: forge.story(identifier), 0.5)
    assert sorted(answers(forge, identifier), key=str) == [("SUCCESS", 1)] * 4 + [(None, 0)]
    tracked = forge.tracked(identifier)
    assert (tracked.files_known, tracked.counts["applied"]) == (5, 1500)
    # The platform gives it up in the end, and says so.
    forge.twin.switch(forge_window_ms=1000)
    assert forge.settled(identifier)["state"] == "TIMED_OUT"
    forge.wait(lambda: forge.tracked(identifier).row.get("status") == "TIMED_OUT", 15, lambda: forge.story(identifier))


def test_an_answer_that_got_lost_is_given_again_and_never_another(forge):
    forge.twin.fault(target="forge.message_status", kind="lose_answer", next=2)
    identifier = forge.migrate(FILES)["transfer_id"]
    forge.succeeded(identifier)
    assert {message["answer"] for message in forge.messages(identifier)} == {"SUCCESS"}
    assert not [message for message in forge.messages(identifier) if message["contradictions"]]


def test_a_rerun_applies_only_what_is_missing_if_its_events_name_the_first_transfer(forge):
    first = forge.migrate({"label": "a.ndjson", "records": 200, "missing_mappings": 6}, {"label": "b.ndjson", "records": 100})["transfer_id"]
    assert forge.settled(first)["state"] == "FAILED", forge.story(first)
    assert forge.closed(first).counts["held"] == 6
    missing = forge.twin.get(f"/control/transfers/{first}/mappings")["not_found"]
    keys = [entry.split(" ", 1)[1] for entry in missing if entry.startswith("identity:user ")]
    forge.twin.call("PUT", "/control/mappings", {"namespace": "identity:user", "values": {key: f"found-{n}" for n, key in enumerate(keys)}})
    again = forge.twin.rerun(first)["transfer_id"]
    transfer = forge.succeeded(again)
    assert transfer.original == first
    assert transfer.counts == {"read": 300, "applied": 6, "unchanged": 294, "held": 0, "rejected": 0}


@pytest.mark.parametrize(
    "wish",
    [
        {"token": {"signed_by": "unpublished"}},
        {"token": {"algorithm": "none"}},
        {"token": {"algorithm": "HS256_with_public_key"}},
        {"token": {"audience": "ari:cloud:ecosystem::app/another"}},
        {"token": {"issuer": "forge/another-token"}},
        {"token": {"expires_in_s": -600}},
    ],
    ids=["unpublished key", "none", "public key as secret", "another app", "another issuer", "expired"],
)
def test_a_token_that_does_not_hold_is_refused_at_both_paths_and_nothing_is_stored(forge, wish):
    before = forge.rows()
    for path in (FORGE_EVENTS, FORGE_TOKEN):
        assert forge.call(path, forge.forge_event(), forge.tokens(**wish)).status == 401
    assert forge.rows() == before


def test_without_a_token_nothing_is_taken(forge):
    for path in (FORGE_EVENTS, FORGE_TOKEN):
        assert forge.call(path, forge.forge_event(), {}).status == 401


def test_an_answer_is_the_json_that_the_platform_wants(forge):
    answer = forge.call(FORGE_EVENTS, forge.forge_event())
    assert (answer.status, json.loads(answer.body)) == (200, {})


def test_no_message_and_no_row_holds_a_token_a_signed_url_or_a_plans_name(forge, world):
    queues = world.cloud.client("sqs")
    made = forge.tokens()
    assert forge.call(FORGE_TOKEN, {}, made).status == 200
    with forge.mappings_off():
        plan = forge.migrate({"label": "a.ndjson", "records": 50}, {"label": "b.ndjson", "records": 50})
        forge.twin.get(f"/control/transfers/{plan['transfer_id']}", wait_for="exported", timeout_ms=10_000)
        forge.wait(lambda: forge.waiting("ImportJobs") >= 2 and forge.waiting("TransferEvents") >= 1, 10, "no messages were sent")
        bodies = []
        for name in ("TransferEvents", "ImportJobs"):
            answer = queues.receive_message(QueueUrl=forge.queue(name), MaxNumberOfMessages=10, VisibilityTimeout=0)
            bodies += [str(message) for message in answer["Messages"]]
    assert len(bodies) >= 3
    forge.succeeded(plan["transfer_id"])
    secrets = all_secrets(world) | {made["system_token"], made["token"]}
    assert not [body for body in bodies if betrayal(body, secrets)]
    assert not [f"{row['pk']} {row['sk']}" for row in forge.rows() if betrayal(str(row), secrets)]
    lines = [line for function in ("intake", "processor", "sweeper") for line in forge.log(function)]
    assert lines
    assert not [line for line in lines if betrayal(line, secrets)]
