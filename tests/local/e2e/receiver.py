"""A partner's own service, as the http sink meets it: checks the Standard Webhooks signature by itself and keeps what came."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "whsec_" + base64.b64encode(b"a-secret-of-the-partner-0123456789").decode()


class Receiver:
    """Listens on loopback while the block runs."""

    def __init__(self):
        self.url = ""
        self.refused: list[str] = []
        # What each batch was answered, by its idempotency key: a batch that comes again is not applied again.
        self.batches: dict[str, tuple[str, bytes]] = {}
        self.repeated = 0
        # How often each record was applied, by label and key; and the digest of its content.
        self.applied: dict[tuple[str, str], int] = {}
        self.content: dict[tuple[str, str], str] = {}
        # Called with each new batch's number before it is answered: a test may take its time here, or kill somebody.
        self.before_answer = lambda number: None
        # What a test wants said of a record: (outcome, reason).
        self.judge = lambda record: ("applied", None)
        self._lock = threading.Lock()

    def __enter__(self) -> Receiver:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status, answer = receiver.take(dict(self.headers.items()), body)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # A killed worker breaks its connection: that is what some tests are about.

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/landfall/records"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """One request."""
        headers = {name.lower(): value for name, value in headers.items()}
        identity = headers.get("webhook-id", "")
        if problem := self._problem(headers, identity, body):
            self.refused.append(problem)
            return 401, b"{}"
        with self._lock:
            if identity in self.batches:
                self.repeated += 1
                digest, answer = self.batches[identity]
                if digest != hashlib.sha256(body).hexdigest():
                    self.refused.append(f"batch {identity} came again with another content")
                return 200, answer
            batch = json.loads(body)
            results = []
            for record in batch["records"]:
                place = (batch["label"], record["key"])
                outcome, reason = self.judge(record["record"])
                if outcome == "applied":
                    self.applied[place] = self.applied.get(place, 0) + 1
                    self.content[place] = hashlib.sha256(json.dumps(record["record"], sort_keys=True).encode()).hexdigest()
                results.append({"key": record["key"], "outcome": outcome} | ({"reason": reason} if reason else {}))
            answer = json.dumps({"results": results}).encode()
            self.batches[identity] = (hashlib.sha256(body).hexdigest(), answer)
            number = len(self.batches)
        self.before_answer(number)
        return 200, answer

    @staticmethod
    def _problem(headers: dict[str, str], identity: str, body: bytes) -> str | None:
        timestamp = headers.get("webhook-timestamp", "")
        if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > 300:
            return f"timestamp {timestamp!r}"
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        expected = hmac.new(key, f"{identity}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        given = [part.removeprefix("v1,") for part in headers.get("webhook-signature", "").split(" ") if part.startswith("v1,")]
        if not any(hmac.compare_digest(base64.b64encode(expected).decode(), signature) for signature in given):
            return "signature"
        if json.loads(body[: body.index(b',"records"')] + b"}")["batch"] != identity:
            return "the body's batch is not the webhook-id"
        return None
