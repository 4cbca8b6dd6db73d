"""Workers that die."""

from harness import Killer


def test_a_worker_that_is_killed_in_mid_file_loses_and_doubles_nothing(app):
    app.twin.switch(store_bytes_per_second=150_000)
    plan = app.migrate({"label": "big.ndjson", "records": 4000}, manifest=True)
    identifier = plan["transfer_id"]

    def half_way() -> bool:
        files = app.tracking.files(app.tenant, identifier)
        return any(row.get("checkpoint") and row["state"] == "OPEN" for row in files)

    with Killer(app, half_way) as killer:
        transfer = app.succeeded(identifier, within=90)
    assert killer.killed, "no worker was there to be killed"
    assert transfer.counts == {"read": 4000, "applied": 4000, "unchanged": 0, "held": 0, "rejected": 0}
    assert len(app.records_by_key()) == 4000
    assert app.settlements(identifier) == 1


def test_workers_that_are_killed_all_the_time_still_finish(app):
    app.twin.switch(store_bytes_per_second=200_000)
    plan = app.migrate({"label": "part-{n}-of-{of}.ndjson", "copies": 3, "records": 1200}, manifest=True)
    identifier = plan["transfer_id"]
    pauses = iter(range(10_000))

    with Killer(app, lambda: next(pauses) % 40 == 39, limit=5) as killer:
        transfer = app.succeeded(identifier, within=150)
    assert len(killer.killed) >= 3
    assert transfer.counts["applied"] == 3600
    assert len(app.records_by_key()) == 3600
