"""A site that bears so many calls and doesn't say how many."""

import time

from harness import Declaration

# Every batch asks for ids that no other batch has.
_LOOKED_UP = """
[[imports]]
label = "*"
natural_key = "/id"

[[imports.mappings]]
pointer = "/id"
namespace = "jira/classic:issue"
on_miss = "keep"
"""

CALLS = 60
WINDOW_MS = 5_000
WARM_UP = 30
MEASURED = 75


def test_workers_use_most_of_a_sites_hidden_quota_and_none_calls_within_a_pause(make_app):
    declaration = Declaration(clocks={"retry_pause": "1s"}, limits={"batch_records": 4}, imports=_LOOKED_UP)
    app = make_app(declaration)
    app.twin.call("PUT", "/control/quotas", {"site": app.site, "calls": CALLS, "window_ms": WINDOW_MS})
    files = {"label": "part-{n}-of-{of}.ndjson", "copies": 10, "records": 800}
    transfer = app.migrate(files, manifest=True)["transfer_id"]

    time.sleep(WARM_UP)
    warm = app.twin.get("/control/clock")["now_ms"]
    deadline = time.monotonic() + MEASURED
    while time.monotonic() < deadline:
        app.sweep()
        time.sleep(2)
    end = app.twin.get("/control/clock")["now_ms"]
    assert app.platform(transfer)["state"] == "IN_PROGRESS", "there was work to do all the time"

    measured = app.twin.get("/control/quotas", from_ms=warm, until_ms=end)[app.site]
    whole = app.twin.get("/control/quotas")[app.site]
    print({name: whole[name] for name in ("taken", "refused", "on_the_way", "inside_pauses", "latest_ms", "operations")})
    print({name: measured[name] for name in ("taken", "refused", "share_used", "share_refused", "on_the_way")})
    assert whole["refused"] > 0, "the quota was found"
    assert measured["share_used"] >= 0.85, measured
    assert measured["share_refused"] < 0.01, measured
    assert whole["inside_pauses"] == 0, whole

    app.twin.call("DELETE", "/control/quotas")
    assert app.succeeded(transfer, within=240).counts["read"] == 8_000
