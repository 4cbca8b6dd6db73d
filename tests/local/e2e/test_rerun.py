"""The admin's re-run, and cancellation."""

import json
import time

from harness import Declaration, changes

FOUR_FILES = {"label": "pages-{n}-of-{of}.ndjson", "copies": 4, "records": 250}


def half_dead(app) -> dict:
    plan = app.migrate(FOUR_FILES, manifest=True, stop_export_after=2)
    app.failed(plan["transfer_id"])
    return plan


def test_a_rerun_applies_only_what_is_missing_and_the_target_is_as_after_one_clean_run(make_app):
    app = make_app(Declaration().with_clocks(export_silence="4s"))
    first = half_dead(app)
    again = app.twin.rerun(first["transfer_id"], stop_export_after=None)
    assert again["original_transfer_id"] == first["transfer_id"]
    transfer = app.succeeded(again["transfer_id"])
    assert transfer.original == first["transfer_id"]
    assert transfer.counts == {"read": 1000, "applied": 500, "unchanged": 500, "held": 0, "rejected": 0}
    assert app.tracking.attempts(app.tenant, first["transfer_id"]) == [first["transfer_id"], again["transfer_id"]]

    clean = make_app(Declaration().with_clocks(export_silence="4s"), suffix="-clean")
    # The same content: seeds follow from the labels.
    clean.succeeded(clean.migrate(FOUR_FILES, manifest=True)["transfer_id"])
    assert app.records_by_key() == clean.records_by_key()


def test_a_rerun_of_a_rerun_keeps_the_chain(make_app):
    app = make_app(Declaration().with_clocks(export_silence="4s"))
    first = half_dead(app)
    second = app.twin.rerun(first["transfer_id"], stop_export_after=3)
    app.failed(second["transfer_id"])
    third = app.twin.rerun(second["transfer_id"], stop_export_after=None)
    transfer = app.succeeded(third["transfer_id"])
    assert transfer.original == first["transfer_id"]
    assert transfer.counts["unchanged"] == 750
    attempts = app.tracking.attempts(app.tenant, first["transfer_id"])
    assert attempts == [first["transfer_id"], second["transfer_id"], third["transfer_id"]]


def test_a_held_record_is_applied_by_the_rerun_once_its_mapping_exists(app):
    plan = app.migrate({"label": "a.ndjson", "records": 200, "missing_mappings": 6}, manifest=True)
    assert app.settled(plan["transfer_id"])["state"] == "INCOMPLETE"
    assert app.closed(plan["transfer_id"]).counts["held"] == 6
    missing = app.twin.get(f"/control/transfers/{plan['transfer_id']}/mappings")["not_found"]
    # Each is written as "namespace key".
    keys = [entry.split(" ", 1)[1] for entry in missing if entry.startswith("identity:user ")]
    app.twin.call("PUT", "/control/mappings", {"namespace": "identity:user", "values": {key: f"found-{n}" for n, key in enumerate(keys)}})
    again = app.twin.rerun(plan["transfer_id"])
    transfer = app.succeeded(again["transfer_id"])
    assert transfer.counts == {"read": 200, "applied": 6, "unchanged": 194, "held": 0, "rejected": 0}


def test_a_cancelled_transfer_is_settled_and_nothing_more_is_written_for_it(app):
    app.twin.switch(store_bytes_per_second=20_000)
    plan = app.migrate({"label": "slow-{n}-of-{of}.ndjson", "copies": 3, "records": 1000}, manifest=True)
    identifier = plan["transfer_id"]

    def begun() -> bool:
        # Not the records themselves: reading the table with those of all other tests may take longer than the import.
        checkpoints = [row["checkpoint"] for row in app.tracking.files(app.tenant, identifier) if row.get("checkpoint")]
        return any(json.loads(checkpoint)["counts"]["applied"] for checkpoint in checkpoints)

    app.wait(begun, 20, "nothing was imported")
    app.twin.post(f"/control/transfers/{identifier}/cancel", {"force": True})
    platform = app.settled(identifier, within=40)
    assert platform["state"] in ("INCOMPLETE", "FAILED"), app.story(identifier)
    transfer = app.closed(identifier)
    assert transfer.counts["read"] < 3000
    row, records = app.quiet(identifier), app.tenant_records()
    time.sleep(6)
    app.sweep()
    assert app.tenant_records() == records
    assert changes(row, app.tracked(identifier).row) == {}
    assert app.settlements(identifier) == 1


def test_events_after_the_end_change_nothing(app):
    plan = app.migrate({"label": "a.ndjson", "records": 100}, manifest=True)
    app.succeeded(plan["transfer_id"])
    row, records = app.quiet(plan["transfer_id"]), app.tenant_records()
    for event_type in ("listener-triggered", "transfer-cancellation-requested", "listener-errored"):
        assert app.post(app.event(event_type, transferId=plan["transfer_id"])).status == 200
    late = app.event("app-data-uploaded", transferId=plan["transfer_id"], s3Key="b6a2f0c1-9c7e-4f62-8c1e-2b6f0f7e5001", label="late.ndjson")
    assert app.post(late).status == 200
    time.sleep(4)
    app.sweep()
    assert changes(row, app.tracked(plan["transfer_id"]).row) == {}
    assert app.tenant_records() == records
    assert app.settlements(plan["transfer_id"]) == 1
