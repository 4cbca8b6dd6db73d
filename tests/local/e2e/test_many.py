"""Many transfers at once."""

from harness import Declaration


def test_ten_transfers_of_twenty_files_in_any_order_and_five_times_end_as_one_clean_run(make_app):
    files = {"label": "part-{n}-of-{of}.ndjson", "copies": 20, "records": 60}
    # Hundreds of messages wait for their turn on a small machine: what waits isn't lost.
    app = make_app(Declaration().with_clocks(message_grace="20s"))
    app.twin.fault(target="events", kind="duplicate", copies=4, probability=0.5, site=app.site)
    app.twin.fault(target="events", kind="delay", delay_ms=1500, probability=0.3, site=app.site)
    plans = [app.migrate(files, manifest=True, order="shuffled", parallel=4) for _ in range(10)]
    transfers = [app.succeeded(plan["transfer_id"], within=240, sweeping=3) for plan in plans]

    app.twin.heal()
    clean = make_app(Declaration().with_clocks(message_grace="20s"), suffix="-clean")
    # It waits behind what is left of the others' repeated messages.
    clean_transfer = clean.succeeded(clean.migrate(files, manifest=True)["transfer_id"], within=240, sweeping=3)
    assert clean_transfer.counts["applied"] == 1200
    expected = clean.records_by_key()

    for plan, transfer in zip(plans, transfers, strict=True):
        assert transfer.counts == clean_transfer.counts
        assert app.settlements(plan["transfer_id"]) == 1
        assert app.finals(plan["transfer_id"]) == {"SUCCESS"}
    by_chain: dict[str, dict] = {}
    for row in app.tenant_records().values():
        by_chain.setdefault(row["chain"], {})[(row["label"], row["key"])] = row["record"]
    assert set(by_chain) == {plan["transfer_id"] for plan in plans}
    for chain, records in by_chain.items():
        assert records == expected, f"the records of {chain} differ from a clean run's"
