"""The manifest that partners copy: it must hold what Landfall needs on Forge, and the page about it must show exactly this file."""

import re
from functools import cache

import yaml

from landfall_local.settings import REPOSITORY

MANIFEST = REPOSITORY / "contracts" / "forge" / "manifest.yml"
PAGE = REPOSITORY / "docs" / "forge.md"

# PROTOCOL 7.2: what the platform sends. The preloaded event's name is not published (OPEN-QUESTIONS D14).
EVENTS = {
    "avi:ecosystem.migration:triggered:listener",
    "avi:ecosystem.migration:uploaded:app_data",
    "avi:ecosystem.migration:completed:export_phase",
    "avi:ecosystem.migration:requested:transfer_cancellation",
    "avi:ecosystem.migration:errored:listener",
    "avi:ecosystem.migration:settled:transfer",
}
PRELOADED = "avi:ecosystem.migration:preloaded:app_data"

# Scopes that only ask for tokens: with nothing beside them no valid token is made (PROTOCOL 7.1).
TOKEN_SCOPES = {"read:app-system-token", "read:app-user-token"}


@cache
def manifest() -> dict:
    return yaml.safe_load(MANIFEST.read_text())


def modules(kind: str) -> list[dict]:
    return manifest()["modules"][kind]


def endpoint(key: str) -> dict:
    (found,) = [endpoint for endpoint in modules("endpoint") if endpoint["key"] == key]
    return found


def test_the_trigger_has_every_migration_event_once_and_the_module_that_gets_none_is_not_there():
    (trigger,) = modules("trigger")
    assert len(trigger["events"]) == len(EVENTS) and set(trigger["events"]) == EVENTS
    assert "migration" not in manifest()["modules"]
    assert "function" not in manifest()["modules"]


def test_every_event_is_one_that_landfall_knows_by_this_name():
    decoder = (REPOSITORY / "shared" / "platform" / "src" / "forge" / "event.rs").read_text()
    for event in EVENTS | {PRELOADED}:
        prefix, name = re.fullmatch(r"(avi:ecosystem\.migration:)(.+)", event).groups()
        assert f'"{prefix}"' in decoder and f'"{name}"' in decoder, event


def test_the_preloaded_event_is_shown_but_commented_out_because_its_name_is_a_guess():
    lines = [line.strip() for line in MANIFEST.read_text().splitlines() if PRELOADED in line]
    assert lines == [f"# - {PRELOADED}"]


def test_every_endpoint_is_used_and_every_module_leads_to_one():
    used = [module["endpoint"] for kind in ("trigger", "scheduledTrigger") for module in modules(kind)]
    assert sorted(used) == sorted(endpoint["key"] for endpoint in modules("endpoint"))


def test_the_events_and_the_schedule_have_endpoints_of_their_own_with_the_system_token():
    (trigger,), (schedule,) = modules("trigger"), modules("scheduledTrigger")
    assert endpoint(trigger["endpoint"])["route"] == {"path": "/forge/events"}
    assert endpoint(schedule["endpoint"])["route"] == {"path": "/forge/token"}
    for found in modules("endpoint"):
        assert found["auth"]["appSystemToken"] == {"enabled": True}, found["key"]


def test_the_routes_are_those_that_intake_serves():
    intake = (REPOSITORY / "functions" / "intake" / "src" / "intake.rs").read_text()
    for found in modules("endpoint"):
        assert f'"{found["route"]["path"]}" =>' in intake, found["key"]


def test_the_token_is_refreshed_well_within_its_four_hours():
    (schedule,) = modules("scheduledTrigger")
    # The others that there are: fiveMinute, which only calls more often, and day and week, which are too late.
    assert schedule["interval"] == "hour"


def test_there_is_one_remote_for_all_endpoints_that_may_compute_and_gets_the_token():
    (remote,) = manifest()["remotes"]
    assert {endpoint["remote"] for endpoint in modules("endpoint")} == {remote["key"]}
    assert "compute" in remote["operations"]
    assert remote["auth"]["appSystemToken"] == {"enabled": True}
    assert remote["baseUrl"].startswith("https://") and not remote["baseUrl"].endswith("/")


def test_a_scope_of_the_product_stands_beside_the_one_for_the_token():
    scopes = set(manifest()["permissions"]["scopes"])
    assert "read:app-system-token" in scopes
    assert scopes - TOKEN_SCOPES, "without one no valid token is made"


def test_keys_are_as_short_as_they_must_be_and_each_is_there_once():
    keys = [module["key"] for kind in manifest()["modules"].values() for module in kind]
    assert len(keys) == len(set(keys))
    for found in [*modules("endpoint"), *manifest()["remotes"]]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,23}", found["key"])


def test_the_app_is_named_by_its_ari():
    assert manifest()["app"]["id"].startswith("ari:cloud:ecosystem::app/")


def test_the_page_shows_exactly_this_file():
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert shown == MANIFEST.read_text()
