"""Every row of the bad-input table, through the function URL, against what is stored afterwards."""

import base64
import json
import time

import pytest

from harness import Declaration
from landfall_local.token import sign

# What is wrong with the token, and what the log must name.
BAD_TOKENS = {
    "no token": {"place": "absent"},
    "bad signature": {"secret": "literal:not-the-secret-of-this-tenant"},
    "alg none": {"algorithm": "none"},
    "RS256 with the secret as key": {"algorithm": "RS256_with_secret"},
    "RS256 with the install key": {"algorithm": "RS256"},
    "HS256 with the public install key": {"algorithm": "HS256_with_public_key"},
    "HS512": {"algorithm": "HS512"},
    "wrong qsh": {"qsh": "wrong"},
    "no qsh": {"qsh": "absent"},
    "expired": {"issued_in_s": -600, "expires_in_s": -300},
    "issued in the future": {"issued_in_s": 300, "expires_in_s": 600},
    "unknown tenant": {"issuer": "7f0c2f7e-0000-0000-0000-000000000000"},
}


@pytest.mark.parametrize("wrong", BAD_TOKENS, ids=lambda name: name.replace(" ", "-"))
def test_a_token_that_does_not_verify_is_401_says_not_why_and_stores_nothing(app, wrong):
    before = app.rows()
    answer = app.twin_event(app.event(), token=BAD_TOKENS[wrong])
    reference = app.twin_event(app.event(), token=BAD_TOKENS["no token"])
    assert answer.status == reference.status == 401
    assert answer.body == reference.body, "the body tells one reason from another"
    assert app.rows() == before


def test_a_wrong_query_string_hash_is_logged_with_both_canonical_requests_and_no_secret(app):
    app.twin_event(app.event(), token={"qsh": "wrong"})
    lines = [line for line in app.log("intake") if "qsh" in line]
    assert any("POST&/connect/events&" in line for line in lines), lines
    assert not any(app.installation["shared_secret"] in line or "eyJ" in line for line in app.log("intake"))


def test_an_uninstalled_tenant_is_401(app):
    assert app.post(app.event()).status == 200
    app.twin.post("/control/uninstall", {"site": app.site})
    time.sleep(1.2)  # clocks.tenant_cache
    before = app.rows()
    assert app.post(app.event()).status == 401
    assert app.rows() == before


def test_a_body_that_names_another_tenant_is_handled_as_the_tokens_own_and_noted(app, make_app):
    other = make_app(suffix="-other")
    untouched = other.tracking.rows(f"TENANT#{other.tenant}")
    event = app.event()
    event["migrationDetails"]["jiraClientKey"] = other.tenant
    assert app.twin_event(event).status == 200
    app.wait(lambda: app.tracked(event["transferId"]), 20, "the event was not handled as the token's tenant's")
    assert app.tracking.notes(app.tenant, "SECURITY")
    assert app.tracking.notes(app.tenant, "COUNT")
    assert other.tracked(event["transferId"]) is None
    assert other.tracking.rows(f"TENANT#{other.tenant}") == untouched


def test_a_body_that_names_another_tenant_is_403_where_the_setting_says_so(make_app):
    app = make_app(Declaration(connect={"foreign_client_keys": "refuse"}))
    event = app.event()
    event["migrationDetails"]["jiraClientKey"] = "7f0c2f7e-0000-0000-0000-000000000000"
    assert app.twin_event(event).status == 403
    assert app.tracked(event["transferId"]) is None


def rejected(app) -> int:
    return len(app.tracking.notes(app.tenant, "REJECTED"))


def test_a_body_over_256_kb_is_413_and_its_metadata_is_kept(app):
    event = app.event()
    event["padding"] = "x" * 262_144
    answer = app.twin_event(event)
    assert answer.status == 413
    assert len(answer.body.splitlines()) == 1 and answer.body.strip()
    app.wait(lambda: rejected(app) == 1, 10, "nothing was kept for support")
    assert app.tracked(event["transferId"]) is None


def test_a_body_that_is_not_json_is_400_and_its_metadata_is_kept(app):
    answer = app.twin_event(raw_body_base64=base64.b64encode(b"<event/>").decode())
    assert answer.status == 400
    assert len(answer.body.splitlines()) == 1 and answer.body.strip()
    app.wait(lambda: rejected(app) == 1, 10, "nothing was kept for support")


@pytest.mark.parametrize(("event_type", "field"), [("listener-triggered", "transferId"), ("app-data-uploaded", "s3Key")])
def test_a_known_event_without_a_required_field_is_422_and_its_metadata_is_kept(app, event_type, field):
    answer = app.twin_event(app.event(event_type, **{field: None}))
    assert answer.status == 422
    assert field in answer.body
    assert len(answer.body.splitlines()) == 1
    app.wait(lambda: rejected(app) == 1, 10, "nothing was kept for support")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_wrong_method_is_405_and_stores_nothing(app, method):
    before = app.rows()
    assert app.post(b"", method=method).status == 405
    assert app.rows() == before


@pytest.mark.parametrize("path", ["/", "/connect", "/connect/event", "/connect/events/x"])
def test_a_wrong_path_is_404_and_stores_nothing(app, path):
    before = app.rows()
    assert app.post(app.event(), path=path).status == 404
    assert app.rows() == before


def test_an_unknown_event_type_and_unknown_fields_are_stored_answered_200_and_counted(app):
    event = app.event("transfer-paused", nextPhase={"depth": [1, 2, 3]})
    assert app.twin_event(event).status == 200
    app.wait(lambda: app.tracking.notes(app.tenant, "COUNT"), 10, "it was not counted")
    stored = [row for row in app.rows() if event["messageId"] in json.dumps(row, default=str)]
    assert stored, "it was not stored"


def test_a_token_in_the_query_is_as_good_as_one_in_the_header(app):
    event = app.event()
    assert app.twin_event(event, token={"place": "query"}).status == 200
    app.wait(lambda: app.tracked(event["transferId"]), 20, "the event was not handled")


def test_our_own_reading_of_the_protocol_is_taken_too(app):
    event = app.event()
    assert app.post(event).status == 200
    app.wait(lambda: app.tracked(event["transferId"]), 20, "the event was not handled")


def test_a_token_that_expired_a_moment_ago_is_within_the_leeway(app):
    now = time.time()
    token = sign(app.installation["shared_secret"], app.tenant, "POST", "/connect/events", now=now - 180 - 30)
    assert app.post(app.event(), token=token).status == 200


class TestLifecycle:
    """`installed` and `uninstalled`."""

    def body(self, app, **fields) -> dict:
        return {
            "key": "com.example.vault.cloud",
            "clientKey": app.tenant,
            "sharedSecret": "canary-secret-of-a-stranger-0123456789",
            "baseUrl": app.installation["base_url"],
            "productType": "jira",
            "eventType": "installed",
        } | fields

    def install(self, app, body, **token):
        return app.twin_event(body, path="/connect/installed", token={"algorithm": "RS256", "audience": app.stack.base_url} | token)

    def secret(self, app):
        return app.tracking.rows(f"TENANT#{app.tenant}", "STATE")[0]["secret"]

    def test_a_tenants_own_secret_can_not_install(self, app):
        before = app.rows()
        answer = app.twin_event(self.body(app), path="/connect/installed", token={"algorithm": "HS256"})
        assert answer.status == 401
        assert app.rows() == before

    def test_a_callback_of_one_tenant_can_not_install_another(self, app, make_app):
        other = make_app(suffix="-other")
        secret = self.secret(other)
        assert self.install(app, self.body(app, clientKey=other.tenant)).status == 401
        assert self.secret(other) == secret

    @pytest.mark.parametrize("key_id", ["../control/sites", "http://127.0.0.1/x", "", "a" * 300])
    def test_a_key_id_that_is_no_key_id_is_never_fetched(self, app, key_id):
        before = app.rows()
        assert self.install(app, self.body(app), key_id=key_id).status == 401
        assert app.rows() == before

    def test_a_callback_for_another_app_is_401(self, app):
        before = app.rows()
        assert self.install(app, self.body(app), audience="https://app.of.somebody.else.example").status == 401
        assert app.rows() == before

    def test_a_base_url_on_a_foreign_host_is_refused(self, app):
        secret = self.secret(app)
        answer = self.install(app, self.body(app, baseUrl="https://atlassian.net.evil.example"))
        assert 400 <= answer.status < 500
        assert self.secret(app) == secret

    def test_a_reinstall_rotates_the_secret_and_takes_calls_in_flight(self, app):
        old = app.installation["shared_secret"]
        app.twin.post("/control/rotate", {"site": app.site})
        answer = app.twin_event(app.event(), token={"secret": "current"})
        assert answer.status == 200
        in_flight = sign(old, app.tenant, "POST", "/connect/events")
        assert app.post(app.event(), token=in_flight).status == 200

    def test_a_new_client_key_for_a_known_site_is_a_new_tenant(self, app):
        old = app.tenant
        answer = app.twin.post("/control/data-import", {"site": app.site})
        assert answer["accepted"]
        new = answer["installation"]["client_key"]
        assert new != old
        assert len(app.tracking.rows(f"TENANT#{new}", "STATE")) == len(app.tracking.rows(f"TENANT#{old}", "STATE")) == 1
