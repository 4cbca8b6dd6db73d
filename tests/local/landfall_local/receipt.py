"""`make receipt`: what became of a transfer, signed, and all of its records that did not arrive, as files."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .settings import Problem

_COLUMNS = ("label", "file", "record", "outcome", "key", "namespace", "reason")


def read(signed: dict) -> tuple[dict, str]:
    """The receipt within a flattened JWS, and the public key under which its signature holds; a Problem when it doesn't."""
    header = json.loads(_decode(signed["protected"]))
    if header.get("alg") != "EdDSA" or header.get("jwk", {}).get("crv") != "Ed25519":
        raise Problem("the receipt is not signed as receipts are (EdDSA, Ed25519)")
    key = header["jwk"]["x"]
    try:
        Ed25519PublicKey.from_public_bytes(_decode(key)).verify(
            _decode(signed["signature"]), f"{signed['protected']}.{signed['payload']}".encode()
        )
    except InvalidSignature:
        raise Problem("the receipt's signature does not hold: it was changed after it was issued") from None
    return json.loads(_decode(signed["payload"])), key


def write(directory: Path, signed: dict, lines: Iterable[str]) -> dict:
    """Writes receipt.json, exceptions.jsonl and exceptions.csv; gives the receipt. A Problem when the exceptions are not those that it names."""
    receipt, _key = read(signed)
    directory.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with (directory / "exceptions.jsonl").open("w", newline="") as plain, (directory / "exceptions.csv").open("w", newline="") as table:
        rows = csv.DictWriter(table, _COLUMNS)
        rows.writeheader()
        for line in lines:
            digest.update(line.encode() + b"\n")
            plain.write(line + "\n")
            rows.writerow({name: _harmless(value) for name, value in json.loads(line).items()})
    if digest.hexdigest() != receipt["exceptions"]["sha256"]:
        raise Problem("the exceptions changed while they were read: the transfer is still under way; ask again when it is settled")
    (directory / "receipt.json").write_text(json.dumps(signed, indent=2) + "\n")
    return receipt


def _harmless(value: object) -> object:
    """A spreadsheet takes a text that begins so for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
