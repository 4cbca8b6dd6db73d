"""The table and the queue. The clients are made once and keep their connections, as boto3 does by default; threads may share them."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass

import boto3
from botocore.config import Config

from upload import Upload

TABLE = os.environ["LANDFALL_TABLE"]
QUEUE_URL = os.environ["LANDFALL_IMPORTS_QUEUE_URL"]

# The platform waits 5 seconds for its answer: an attempt that hangs has to leave time for another one.
PATIENCE = Config(
    # Lambda sets this and AWS_DEFAULT_REGION, which is the only one that boto3 looks at by itself.
    region_name=os.environ["AWS_REGION"],
    connect_timeout=0.75,
    read_timeout=0.75,
    retries={"mode": "standard", "total_max_attempts": 3},
)

TENANT_CACHE_MILLISECONDS = 10_000
MESSAGE_GRACE_MILLISECONDS = 2 * 60_000
DEDUPE_LIFE_SECONDS = 30 * 24 * 3_600
DUE_SHARDS = 4

# The plain clients: the resource `Table` is more comfortable and costs more.
table = boto3.client("dynamodb", config=PATIENCE)
queue = boto3.client("sqs", config=PATIENCE)


@dataclass(frozen=True)
class Tenant:
    installed: bool
    secret: str


_tenants: dict[str, tuple[Tenant, int]] = {}


def warm_up() -> None:
    """Opens the table's connection while nobody waits for it."""
    table.get_item(TableName=TABLE, Key={"pk": {"S": "WARM#UP"}, "sk": {"S": "WARM#UP"}})


def find_tenant(client_key: str, now: int) -> Tenant | None:
    """The tenant as it was read within the last seconds; none when the app was never installed there."""
    tenant, look_at = _tenants.get(client_key, (None, 0))
    if now < look_at:
        return tenant
    row = table.get_item(
        TableName=TABLE,
        Key={"pk": {"S": f"TENANT#{client_key}"}, "sk": {"S": "STATE"}},
        # An event may follow its installation at once.
        ConsistentRead=True,
    ).get("Item")
    if not row:
        _tenants.pop(client_key, None)
        return None
    # Landfall keeps the secret sealed in this row, in another attribute. Opening it is once a cache's life, so the comparison takes it as
    # plain text, which a table of yours should not hold.
    tenant = Tenant(installed=row.get("installed", {}).get("BOOL") is True, secret=row["plain_secret"]["S"])
    _tenants[client_key] = (tenant, now + TENANT_CACHE_MILLISECONDS)
    return tenant


def announce(tenant: str, upload: Upload, received_at: int) -> bool:
    """Puts the file's row, unless it is there: false says that the event was delivered before."""
    partition = f"TRANSFER#{tenant}#{upload.transfer_id}"
    sort = f"FILE#{upload.s3_key}"
    row = {
        "pk": {"S": partition},
        "sk": {"S": sort},
        "kind": {"S": "file"},
        "v": {"N": "1"},
        "tenant": {"S": tenant},
        "transfer_id": {"S": upload.transfer_id},
        "s3_key": {"S": upload.s3_key},
        "event": {"S": upload.json_text},
        "state": {"S": "ANNOUNCED"},
        "fence": {"N": "0"},
        "attempts": {"N": "0"},
        "received_at": {"N": str(received_at)},
        "expires_at": {"N": str(received_at // 1000 + DEDUPE_LIFE_SECONDS)},
        # The sparse index of rows whose message may be missing. Any even spread will do; Landfall's own hash is another.
        "due_shard": {"S": f"DUE#{zlib.crc32((partition + sort).encode()) % DUE_SHARDS}"},
        "due_at": {"N": str(received_at + MESSAGE_GRACE_MILLISECONDS)},
    }
    if upload.label is not None:
        row["label"] = {"S": upload.label}
    if upload.message_id is not None:
        row["message_id"] = {"S": upload.message_id}
    try:
        table.put_item(TableName=TABLE, Item=row, ConditionExpression="attribute_not_exists(pk)")
    except table.exceptions.ConditionalCheckFailedException:
        return False
    return True


def enqueue(tenant: str, upload: Upload, received_at: int) -> None:
    """Sends the event to whoever imports the file."""
    message = {"v": 1, "tenant": tenant, "task": {"event": {"body": upload.json_text, "received_at": received_at}}}
    queue.send_message(
        QueueUrl=QUEUE_URL,
        MessageBody=json.dumps(message, ensure_ascii=False, separators=(",", ":")),
        # A fair queue: one tenant's backlog doesn't delay the others.
        MessageGroupId=tenant,
    )
