"""A receiver for Landfall's HTTP sink in Python 3.11, with the standard library only. The store is an SQLite file.

    LANDFALL_SINK_SECRET=whsec_… python3 receiver.py --port 8080 --store landfall.sqlite3

Put a proxy that ends TLS before it. To make it yours, replace `refusal` and the tables `records`, `pieces` and `files`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The contract's largest body is some 3.2 MB.
BODY_BYTES = 4 * 1024 * 1024
TOLERANCE_SECONDS = 300
# Landfall settles every transfer within 11 days; what comes again does so before that.
REMEMBERED_SECONDS = 14 * 86_400

SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries (
    webhook_id TEXT PRIMARY KEY,
    received_at INTEGER NOT NULL,
    answer TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS deliveries_by_age ON deliveries (received_at);
CREATE TABLE IF NOT EXISTS records (
    tenant TEXT NOT NULL,
    chain TEXT NOT NULL,
    label TEXT NOT NULL,
    key TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (tenant, chain, label, key)
);
CREATE TABLE IF NOT EXISTS pieces (
    file TEXT NOT NULL,
    offset INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (file, offset)
);
CREATE TABLE IF NOT EXISTS files (
    tenant TEXT NOT NULL,
    chain TEXT NOT NULL,
    label TEXT NOT NULL,
    file TEXT NOT NULL,
    file_hash TEXT NOT NULL,
    PRIMARY KEY (tenant, chain, label)
);
"""


class Refused(Exception):
    """A request that is not taken at all."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def read_secrets(text: str) -> list[bytes]:
    """One secret; or two with a space between them, while the old one is being replaced."""
    secrets = [base64.b64decode(secret.removeprefix("whsec_"), validate=True) for secret in text.split()]
    if not secrets or any(len(secret) < 24 for secret in secrets):
        raise ValueError("LANDFALL_SINK_SECRET must hold the secret that Landfall signs with: whsec_ and base64.")
    return secrets


def check_signature(secrets: list[bytes], headers: Mapping[str, str], body: bytes) -> str:
    """The webhook-id of a well signed request."""
    identity, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = [part for part in headers.get("webhook-signature", "").split(" ") if part.startswith("v1,")]
    if not identity or not given or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise Refused(401, "A webhook header is missing or malformed.")
    signed = f"{identity}.{timestamp}.".encode() + body
    expected = [b"v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()) for secret in secrets]
    # Every pair is compared, each in constant time: how long it takes must not tell how much of a guess is right.
    if not any([hmac.compare_digest(one, other.encode()) for one in expected for other in given]):
        raise Refused(401, "The signature is wrong.")
    if abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        raise Refused(401, "The timestamp is more than five minutes off.")
    return identity


def check_piece(identity: str, headers: Mapping[str, str]) -> dict:
    """What the header says of a raw file's piece. The signature covers it through the webhook-id, which is its digest."""
    described = headers.get("landfall-piece", "")
    if hashlib.sha256(described.encode()).hexdigest() != identity:
        raise Refused(401, "The header landfall-piece is not the one that was signed.")
    piece = json.loads(described)
    if piece["version"] != 1:
        raise Refused(400, "This receiver knows version 1 of a piece only.")
    return piece


def refusal(record: object) -> str | None:
    """Why a record is rejected; your own rules belong here. The reason is shown to people: no personal data in it."""
    return None if isinstance(record, dict) else "a record must be an object"


class Store:
    """What was received. A batch is one transaction: its records and its answer are there together or not at all."""

    def __init__(self, path: str):
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.executescript(SCHEMA)

    def take(self, identity: str, batch: dict) -> str:
        """Applies a batch, unless its webhook-id is known, and returns the answer."""
        return self._once(identity, lambda: [self._apply(batch, entry) for entry in batch["records"]])

    def take_piece(self, identity: str, piece: dict, content: bytes) -> str:
        """Keeps a piece of a raw file, unless its webhook-id is known, and returns the answer."""
        return self._once(identity, lambda: [{"key": piece["file"], **self._keep(piece, content)}])

    def _once(self, identity: str, apply: Callable[[], list[dict[str, str]]]) -> str:
        # The lock orders the threads, and IMMEDIATE other processes on the same file: the second of two simultaneous deliveries finds the first.
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                answer = self.known_answer(identity)
                if answer is None:
                    answer = json.dumps({"results": apply()})
                    self._remember(identity, answer)
                self._connection.execute("COMMIT")
                return answer
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    def known_answer(self, identity: str) -> str | None:
        row = self._connection.execute("SELECT answer FROM deliveries WHERE webhook_id = ?", (identity,)).fetchone()
        return row and row[0]

    def _remember(self, identity: str, answer: str) -> None:
        now = int(time.time())
        self._connection.execute("DELETE FROM deliveries WHERE received_at < ?", (now - REMEMBERED_SECONDS,))
        self._connection.execute("INSERT INTO deliveries VALUES (?, ?, ?)", (identity, now, answer))

    def _apply(self, batch: dict, entry: dict) -> dict[str, str]:
        key, content_hash, record = entry["key"], entry["content_hash"], entry["record"]
        if reason := refusal(record):
            return {"key": key, "outcome": "rejected", "reason": reason}
        place = (batch["tenant"], batch["chain"], batch["label"], key)
        known = self._connection.execute(
            "SELECT content_hash FROM records WHERE tenant = ? AND chain = ? AND label = ? AND key = ?", place
        ).fetchone()
        if known and known[0] == content_hash:
            return {"key": key, "outcome": "unchanged"}
        text = json.dumps(record, ensure_ascii=False, default=str)
        self._connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", (*place, content_hash, text))
        return {"key": key, "outcome": "applied"}


    def _keep(self, piece: dict, content: bytes) -> dict[str, str]:
        file, place = piece["file"], (piece["tenant"], piece["chain"], piece["label"])
        self._connection.execute("INSERT OR REPLACE INTO pieces VALUES (?, ?, ?)", (file, piece["offset"], content))
        if not piece["last"]:
            return {"outcome": "applied"}
        (length,) = self._connection.execute("SELECT sum(length(content)) FROM pieces WHERE file = ?", (file,)).fetchone()
        if length != piece["offset"] + piece["length"]:
            return {"outcome": "rejected", "reason": "pieces of the file are missing"}
        query = "SELECT file, file_hash FROM files WHERE tenant = ? AND chain = ? AND label = ?"
        known, known_hash = self._connection.execute(query, place).fetchone() or (None, None)
        unchanged = known_hash == piece["file_hash"]
        # One copy is enough: the one that is there, or the new one.
        if known != file:
            self._connection.execute("DELETE FROM pieces WHERE file = ?", (file if unchanged else known,))
        if unchanged:
            return {"outcome": "unchanged"}
        self._connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (*place, file, piece["file_hash"]))
        return {"outcome": "applied"}


class Receiver:
    """Takes requests, whatever server they come through."""

    def __init__(self, secrets: list[bytes], store: Store):
        self.secrets = secrets
        self.store = store

    def receive(self, headers: Mapping[str, str], body: bytes) -> str:
        identity = self.check(headers, body)
        if headers.get("content-type") == "application/octet-stream":
            return self.store.take_piece(identity, check_piece(identity, headers), body)
        try:
            # A double would lose digits; the record is signed as it is written.
            batch = json.loads(body, parse_float=Decimal)
        except (ValueError, ArithmeticError) as error:
            raise Refused(400, f"The body can't be read as JSON: {error}") from None
        if batch.get("version") != 1:
            raise Refused(400, "This receiver knows version 1 of the body only.")
        return self.store.take(identity, batch)

    def check(self, headers: Mapping[str, str], body: bytes) -> str:
        return check_signature(self.secrets, headers, body)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A client that stops in the middle of a request must not hold a thread for ever.
    timeout = 60

    def do_POST(self) -> None:
        try:
            answer = self.server.receiver.receive(self.headers, self._body())
            self._answer(200, answer)
        except Refused as refused:
            self._answer(refused.status, json.dumps({"error": str(refused)}))
        except (sqlite3.OperationalError, OSError) as error:
            # Trying again can help: a full disk, a locked file. Landfall does.
            self.log_error("The store failed: %s", error)
            self._answer(503, json.dumps({"error": "The store is not available."}))

    def _body(self) -> bytes:
        length = self.headers.get("content-length", "")
        if not length.isdigit():
            self.close_connection = True
            raise Refused(411, "A content-length is needed.")
        if int(length) > BODY_BYTES:
            self.close_connection = True
            raise Refused(413, f"The body is larger than {BODY_BYTES} bytes.")
        return self.rfile.read(int(length))

    def _answer(self, status: int, body: str) -> None:
        encoded = body.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(encoded)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(encoded)


def serve(host: str, port: int, receiver: Receiver) -> ThreadingHTTPServer:
    """A server that is bound; `serve_forever` runs it."""
    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    server.receiver = receiver
    return server


def main() -> int:
    parser = argparse.ArgumentParser(description="Receives Landfall's deliveries.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--store", default="landfall.sqlite3")
    given = parser.parse_args()
    try:
        secrets = read_secrets(os.environ.get("LANDFALL_SINK_SECRET", ""))
    except ValueError as error:
        print(f"{error}\nSet LANDFALL_SINK_SECRET to the value of the parameter SinkSecret.", file=sys.stderr)
        return 2
    server = serve(given.host, given.port, Receiver(secrets, Store(given.store)))
    print(f"Listening on http://{given.host}:{server.server_address[1]}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
