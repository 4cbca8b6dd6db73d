"""A site that bears so many calls and tells nobody how many."""

import base64
import json
import time

from harness import Declaration

# What the site takes in five seconds.
CALLS = 100
WINDOW_MS = 5_000
# Until the pace is found, and how long it is looked at then, in seconds.
WARM_UP = 60
MEASURED = 60

FILES = 4
IDS_PER_CALL = 100

_LINKS = """
[[imports]]
label = "*"
natural_key = "/id"

[[imports.mappings]]
pointer = "/links/*"
namespace = "jira:issue"
"""


def records(file: int, count: int) -> str:
    """A file of so many records, each of which takes one call: its ids are in no other."""
    first = 1_000_000 * (file + 1)
    lines = (
        json.dumps({"id": f"{file}-{record}", "links": list(range(first + IDS_PER_CALL * record, first + IDS_PER_CALL * (record + 1)))})
        for record in range(count)
    )
    return base64.b64encode("\n".join(lines).encode()).decode()


def test_workers_of_one_site_use_its_hidden_quota_and_stay_within_it(make_app, record_property):
    # Slices as they are on AWS: workers that stop every few seconds leave most of the calls unused that they have a turn for.
    clocks = {"slice": "60s", "lease": "90s", "message_grace": "2m", "work_stale_after": "1h", "export_silence": "1h"}
    timeouts = {"ProcessorTimeout": "75", "EventsVisibilityTimeout": "100", "ImportsVisibilityTimeout": "100"}
    app = make_app(Declaration(imports=_LINKS, clocks=clocks, limits={"batch_records": 20}), timeouts)
    # Listed, all ids would take a handful of calls.
    app.twin.fault(target="rest.mapping_page", kind="status", status=404, site=app.site)
    app.twin.call("PUT", "/control/quotas", {"site": app.site, "calls": CALLS, "window_ms": WINDOW_MS})
    # More than the site takes in the whole time, so that somebody always has something to ask.
    count = (WARM_UP + MEASURED + 40) * 1_000 * CALLS // WINDOW_MS // FILES
    files = [{"label": f"{file}.ndjson", "content_base64": records(file, count)} for file in range(FILES)]
    transfer = app.migrate(*files, manifest=True)["transfer_id"]

    time.sleep(WARM_UP)
    app.sweep()
    from_ms = app.twin.get("/control/clock")["now_ms"]
    time.sleep(MEASURED)
    until_ms = app.twin.get("/control/clock")["now_ms"]
    figures = app.twin.get("/control/quotas", from_ms=from_ms, until_ms=until_ms)[app.site]
    whole = app.twin.get("/control/quotas")[app.site]
    record_property("quota", json.dumps({"measured": figures, "whole": whole}))
    assert app.platform(transfer)["state"] == "IN_PROGRESS", "it was over before it was measured"

    app.twin.call("DELETE", "/control/quotas")
    tracked = app.succeeded(transfer, within=240, sweeping=3)
    assert tracked.counts["applied"] == FILES * count
    assert figures["share_used"] >= 0.85, figures
    assert figures["share_refused"] < 0.01, figures
    assert whole["refused"] > 0, "nobody met the quota"
    assert whole["inside_pauses"] == 0, whole
