"""Reading what Landfall tracks, from outside: the rows of shared/tracking that support reads too."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote

from boto3.dynamodb.types import TypeDeserializer

from .stack import Stack

_DESERIALIZER = TypeDeserializer()
COUNTS = ("read", "applied", "unchanged", "held", "rejected")


def _plain(item: dict) -> dict:
    return {name: _DESERIALIZER.deserialize(value) for name, value in item.items()}


@dataclass(frozen=True)
class Transfer:
    """A transfer's row, as far as it is shown."""

    tenant: str
    identifier: str
    original: str | None
    phase: str
    verdict: str | None
    message: str
    settled_by: str | None
    files_known: int
    files_ended: int
    first_seen_at: int
    counts: dict[str, int] = field(default_factory=dict)
    row: dict = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """read = applied + unchanged + held + rejected."""
        return self.counts["read"] == sum(self.counts[name] for name in COUNTS[1:])


class Tracking:
    """The tracking table and the records table of one stack."""

    def __init__(self, stack: Stack):
        self.table = stack.outputs["TrackingTableName"]
        self.records_table = stack.outputs["RecordsTableName"]
        self._client = stack.cloud.client("dynamodb")

    def transfers(self) -> list[Transfer]:
        """Every transfer, the first seen first. Scans: there are few here."""
        rows = self.scan(self.table, FilterExpression="kind = :kind", ExpressionAttributeValues={":kind": {"S": "transfer"}})
        return sorted((self._transfer(row) for row in rows), key=lambda transfer: transfer.first_seen_at)

    def transfer(self, tenant: str, identifier: str) -> Transfer | None:
        """One transfer."""
        answer = self._client.get_item(
            TableName=self.table, Key={"pk": {"S": self.partition(tenant, identifier)}, "sk": {"S": "STATE"}}, ConsistentRead=True
        )
        return self._transfer(_plain(answer["Item"])) if "Item" in answer else None

    def _transfer(self, row: dict) -> Transfer:
        return Transfer(
            tenant=row["tenant"],
            identifier=row["transfer_id"],
            original=row.get("original_transfer_id"),
            phase=row["phase"],
            verdict=row.get("verdict") or row.get("status"),
            message=row.get("verdict_message", ""),
            settled_by=row.get("settled_by"),
            files_known=int(row["files_known"]),
            files_ended=int(row["files_ended"]),
            first_seen_at=int(row["first_seen_at"]),
            counts={name: int(row[f"records_{name}"]) for name in COUNTS},
            row=row,
        )

    def files(self, tenant: str, identifier: str) -> list[dict]:
        """The rows of a transfer's files, with the platform's key for each, which stands in the row's own."""
        rows = self.rows(self.partition(tenant, identifier), "FILE#")
        return [row | {"s3_key": unquote(row["sk"].removeprefix("FILE#"))} for row in rows]

    def attempts(self, tenant: str, original: str) -> list[str]:
        """The transfers of a chain, the first seen first."""
        return [row["transfer_id"] for row in self.rows(f"CHAIN#{tenant}#{original}", "ATTEMPT#")]

    def notes(self, tenant: str, kind: str) -> list[dict]:
        """A tenant's REJECTED, SECURITY or COUNT rows."""
        return self.rows(f"TENANT#{tenant}", f"{kind}#")

    @staticmethod
    def partition(tenant: str, identifier: str) -> str:
        """Partition key of a transfer."""
        return f"TRANSFER#{tenant}#{identifier}"

    def rows(self, partition: str, prefix: str = "") -> list[dict]:
        """The rows of a partition whose sort key begins with `prefix`."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)" if prefix else "pk = :pk",
            ExpressionAttributeValues={":pk": {"S": partition}} | ({":sk": {"S": prefix}} if prefix else {}),
            ConsistentRead=True,
        )
        return [_plain(item) for page in pages for item in page["Items"]]

    def scan(self, table: str, **options) -> list[dict]:
        """Every row of a table."""
        pages = self._client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True, **options)
        return [_plain(item) for page in pages for item in page["Items"]]

    def everything(self) -> list[dict]:
        """Every row of the tracking table."""
        return self.scan(self.table)

    def records(self) -> list[dict]:
        """Every imported record."""
        return self.scan(self.records_table)
