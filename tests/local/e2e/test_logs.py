"""What all the other tests left in the logs and the rows, and what travels in messages."""

import re

import pytest

from landfall_local import logs
from landfall_local.tracking import Tracking

# A JSON Web Token, and the marks of the store's signed URLs.
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.")
SIGNED = re.compile(r"[?&]signature=|/app-data/[^ \"]*\?")


def betrayal(text: str, secrets: set[str]) -> bool:
    """Whether a text holds what must never leave: a shared secret, a token, a signed URL, a plan's name."""
    return bool(
        any(secret in text for secret in secrets)
        or TOKEN.search(text)
        or SIGNED.search(text)
        or "canary-plan" in text
        or "canary-secret" in text
    )


def all_secrets(world) -> set[str]:
    """Every secret that any tenant ever had."""
    return world.secrets | {site["shared_secret"] for site in world.twin.get("/control/sites") if site.get("shared_secret")}


def test_no_message_holds_a_secret_a_token_a_signed_url_or_a_plans_name(app, world):
    queues = world.cloud.client("sqs")
    with app.mappings_off():
        plan = app.migrate({"label": "a.ndjson", "records": 50}, manifest=True)
        app.twin.get(f"/control/transfers/{plan['transfer_id']}", wait_for="exported", timeout_ms=10_000)
        app.wait(lambda: app.waiting("ImportJobs") >= 2 and app.waiting("TransferEvents") >= 1, 10, "no messages were sent")
        bodies = []
        for name in ("TransferEvents", "ImportJobs"):
            answer = queues.receive_message(QueueUrl=app.queue(name), MaxNumberOfMessages=10, VisibilityTimeout=0)
            bodies += [str(message) for message in answer["Messages"]]
    assert len(bodies) >= 3
    assert not [body for body in bodies if betrayal(body, all_secrets(world))]
    app.succeeded(plan["transfer_id"])


@pytest.mark.last
def test_no_log_holds_a_secret_a_token_a_signed_url_or_a_plans_name(world):
    secrets = all_secrets(world)
    assert secrets
    found = []
    lines = 0
    for stack in world.stacks.values():
        for group in stack.outputs["LogGroups"].split():
            for event in logs.events(stack, group):
                lines += 1
                if betrayal(event["message"], secrets):
                    found.append(f"{group}: {event['message'][:400]}")
    assert lines > 100, "there was nothing to look at"
    assert not found, f"{len(found)} lines, such as\n" + "\n".join(found[:5])


@pytest.mark.last
def test_no_row_holds_a_secret_a_token_a_signed_url_or_a_plans_name(world):
    secrets = all_secrets(world)
    for stack in world.stacks.values():
        for row in Tracking(stack).everything():
            assert not betrayal(str(row), secrets), f"{row['pk']} {row['sk']}"
