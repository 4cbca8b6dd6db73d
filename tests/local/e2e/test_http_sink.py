"""The partner's own service as the sink, and a file of a gigabyte through it."""

from harness import Declaration, Killer
from receiver import SECRET, Receiver

GIGABYTE = 1_000_000_000
MEGABYTE = 1024 * 1024
RSS_LIMIT = 96 * MEGABYTE


def http_sink(receiver: Receiver, **clocks: str) -> Declaration:
    return Declaration(sink=f'kind = "http"\nurl = "{receiver.url}"\ntimeout = "5s"', clocks={"slice": "4s", "lease": "10s"} | clocks)


def test_batches_are_signed_answered_per_record_and_applied_once(make_app):
    with Receiver() as receiver:
        receiver.judge = lambda record: ("rejected", "the estimate is odd") if record["id"] == "10007" else ("applied", None)
        app = make_app(http_sink(receiver), {"SinkSecret": SECRET})
        plan = app.migrate(
            {"label": "a.ndjson", "records": 400, "first_id": 10000}, {"label": "b.json", "format": "json", "records": 300}, manifest=True
        )
        platform = app.settled(plan["transfer_id"])
        assert platform["state"] == "INCOMPLETE", app.story(plan["transfer_id"])
        transfer = app.closed(plan["transfer_id"])
    assert not receiver.refused
    assert transfer.counts["rejected"] == 1
    assert len(receiver.applied) == transfer.counts["applied"] == 699
    assert set(receiver.applied.values()) == {1}


def test_a_gigabyte_passes_in_slices_below_96_mb_and_survives_a_kill(make_app, record_property):
    with Receiver() as receiver:
        app = make_app(http_sink(receiver), {"SinkSecret": SECRET})
        peak: dict[int, int] = {}

        def measure(_number: int) -> None:
            for process in app.workers():
                try:
                    with open(f"/proc/{process.pid}/status") as status:
                        high = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
                    peak[process.pid] = max(peak.get(process.pid, 0), high)
                except (OSError, StopIteration):
                    continue

        receiver.before_answer = lambda number: measure(number) if number % 10 == 0 else None
        plan = app.migrate({"label": "all.ndjson", "bytes": GIGABYTE, "record_bytes": 20_000}, manifest=True)
        file = next(file for file in plan["files"] if file["label"] == "all.ndjson")
        assert file["bytes"] >= GIGABYTE
        with Killer(app, lambda: len(receiver.batches) > 150) as killer:
            transfer = app.succeeded(plan["transfer_id"], within=300, sweeping=5)

    record_property("processor_peak_rss_bytes", max(peak.values()))
    assert killer.killed
    assert not receiver.refused
    assert transfer.counts == {"read": file["records"], "applied": file["records"], "unchanged": 0, "held": 0, "rejected": 0}
    assert len(receiver.applied) == file["records"]
    assert set(receiver.applied.values()) == {1}, "a record was applied twice"
    fetches = next(f for f in app.platform(plan["transfer_id"])["file_list"] if f["label"] == "all.ndjson")["fetches"]
    assert len(fetches) > 3, "it was not imported in slices"
    assert max(peak.values()) <= RSS_LIMIT, f"{max(peak.values()) / MEGABYTE:.0f} MB"
    print(f"peak RSS of the processor: {max(peak.values()) / MEGABYTE:.0f} MB, {len(fetches)} downloads, {receiver.repeated} batches repeated")
