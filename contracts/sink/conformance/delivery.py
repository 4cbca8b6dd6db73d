"""Makes deliveries as Landfall makes them, sends them, and reads the answers as Landfall reads them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import ssl
import threading
import time
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

# The bounds of the contract. openapi.yaml explains each.
BATCH_RECORDS = 99
BATCH_BYTES = 2_097_152
RECORD_BYTES = 1_048_576
GROWTH_BYTES = 4096
PIECE_BYTES = 2_097_152
KEY_BYTES = 1024
NESTING = 127
ANSWER_BYTES = 1_048_576

TENANT = "landfall-conformance"
OUTCOMES = ("applied", "unchanged", "held", "rejected")

# Statuses after which Landfall delivers the batch again; every 5xx is one of them too.
TRY_AGAIN = (408, 425, 429)


class UnusableArgument(ValueError):
    """The secret or the URL can't be used; the message says what to do."""


def secret_bytes(secret: str) -> bytes:
    """The key of the signatures, from `whsec_<base64>`."""
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if encoded == secret or not 24 <= len(key) <= 64:
        raise UnusableArgument('The secret must be "whsec_" and the base64 of 24 to 64 bytes. Give the one that LANDFALL_SINK_SECRET holds.')
    return key


def compact(value: object) -> str:
    """JSON without white space, with characters as they are: so Landfall writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Record:
    """A record and the very text that stands for it in the body."""

    key: str
    text: str

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def member(self) -> str:
        return f'{{"key":{compact(self.key)},"content_hash":"{self.content_hash}","record":{self.text}}}'


@dataclass(frozen=True)
class Batch:
    """What one POST carries."""

    identity: str
    records: tuple[Record, ...]
    body: bytes
    # Beside those of the signature.
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        return [record.key for record in self.records]


def batch(identity: str, chain: str, label: str, records: list[Record], transfer: str | None = None) -> Batch:
    """A batch, its body written byte by byte as Landfall writes it."""
    opening = compact({"version": 1, "batch": identity, "tenant": TENANT, "transfer": transfer or chain, "chain": chain, "label": label})
    members = ",".join(record.member() for record in records)
    return Batch(identity, tuple(records), f'{opening[:-1]},"records":[{members}]}}'.encode())


def pieces(file: str, chain: str, label: str, content: bytes, transfer: str | None = None) -> list[Batch]:
    """The pieces of a raw file, as Landfall cuts and describes them. Each is answered with one result, whose key is the file."""
    made = []
    for offset in range(0, len(content) or 1, PIECE_BYTES):
        body = content[offset : offset + PIECE_BYTES]
        last = offset + PIECE_BYTES >= len(content)
        described = {"version": 1, "file": file, "tenant": TENANT, "transfer": transfer or chain, "chain": chain, "label": label}
        described |= {"offset": offset, "length": len(body), "content_hash": hashlib.sha256(body).hexdigest(), "last": last}
        described |= {"file_hash": hashlib.sha256(content).hexdigest()} if last else {}
        header = json.dumps(described, separators=(",", ":"))
        more = {"content-type": "application/octet-stream", "landfall-piece": header}
        made.append(Batch(hashlib.sha256(header.encode()).hexdigest(), (Record(file, ""),), body, more))
    return made


def signature(key: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`."""
    signed = f"{identity}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def headers(key: bytes, identity: str, body: bytes, timestamp: int | None = None) -> dict[str, str]:
    """The three headers of a Standard Webhook, with the present time unless told otherwise."""
    timestamp = int(time.time()) if timestamp is None else timestamp
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(key, identity, timestamp, body),
    }


@dataclass(frozen=True)
class Exchange:
    """One POST and what came of it."""

    sent: str
    seconds: float
    status: int | None = None
    body: bytes = b""
    # Why there is no status.
    lost: str | None = None
    # Whether the service keeps the connection for another request.
    kept: bool = False

    @property
    def succeeded(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def transient(self) -> bool:
        """Whether Landfall would deliver the batch again after it."""
        return self.status is None or self.status in TRY_AGAIN or self.status >= 500

    def came_back(self) -> str:
        if self.status is None:
            return f"{self.lost}, after {self.seconds:.1f} s"
        shown = self.body[:300].decode(errors="replace").replace("\n", "\\n").replace("\r", "\\r")
        more = f"… ({len(self.body)} bytes)" if len(self.body) > 300 else ""
        return f"{self.status} {shown or '(an empty body)'}{more}, after {self.seconds:.1f} s"


class Failure(Exception):
    """A check that doesn't hold: what is wrong, the exchanges that show it, and what to do."""

    def __init__(self, wrong: str, exchanges: list[Exchange] | Exchange, advice: str):
        super().__init__(wrong)
        self.wrong = wrong
        self.exchanges = exchanges if isinstance(exchanges, list) else [exchanges]
        self.advice = advice


@dataclass
class Service:
    """The service under test."""

    url: str
    timeout: float
    # The time of the slowest answer so far.
    slowest: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise UnusableArgument("The URL must be an absolute http or https URL. Give the one that sink.url of landfall.toml holds.")
        if parts.username or parts.password or parts.fragment:
            raise UnusableArgument("Landfall takes no URL with a user, a password or a fragment. Leave it out; deliveries are signed.")
        self._secure = parts.scheme == "https"
        self._address = (parts.hostname, port)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.landfall_takes_it = self._secure or parts.hostname in ("localhost", "::1") or parts.hostname.startswith("127.")

    def connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._secure:
            return http.client.HTTPSConnection(host, port, timeout=self.timeout, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=self.timeout)

    def post(self, given: dict[str, str], body: bytes, sent: str, connection: http.client.HTTPConnection | None = None) -> Exchange:
        """Sends a request, on a new connection unless one is given. It follows no redirect and uses no proxy, as Landfall doesn't."""
        sent = f"{sent}: POST {self.url} with {', '.join(given) or 'no webhook header'} and {len(body)} bytes"
        own = connection is None
        connection = connection or self.connect()
        began = time.monotonic()
        # A socket's time-out starts anew with each byte; this one is for the whole exchange, as Landfall's is.
        watchdog = threading.Timer(self.timeout, _break, [connection])
        watchdog.daemon = True
        watchdog.start()
        try:
            exchange = self._exchange(connection, given, body, sent, began)
        except (OSError, http.client.HTTPException, ValueError) as error:
            seconds = time.monotonic() - began
            late = seconds >= self.timeout or isinstance(error, TimeoutError)
            lost = f"No complete answer within {self.timeout:g} s" if late else f"No answer: {type(error).__name__}: {error}"
            exchange = Exchange(sent, seconds, lost=lost)
        finally:
            watchdog.cancel()
            if own:
                connection.close()
        if exchange.status is not None and exchange.seconds > self.timeout:
            exchange = replace(exchange, status=None, lost=f"No complete answer within {self.timeout:g} s")
        with self._lock:
            self.slowest = max(self.slowest, exchange.seconds)
        return exchange

    def _exchange(self, connection: http.client.HTTPConnection, given: dict[str, str], body: bytes, sent: str, began: float) -> Exchange:
        # Landfall reads no compressed answers, so it says nothing of encodings.
        connection.putrequest("POST", self._target, skip_accept_encoding=True)
        for name, value in {"accept": "*/*", "user-agent": "landfall-conformance/1", "content-type": "application/json", **given}.items():
            connection.putheader(name, value)
        connection.putheader("content-length", str(len(body)))
        unsent = None
        try:
            connection.endheaders(body)
        except (BrokenPipeError, ConnectionResetError) as error:
            # A service that refuses by the headers alone may answer and close before it has read the body.
            unsent = error
        try:
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise unsent or ConnectionError("the connection was closed without an answer") from None
        answer = response.read(ANSWER_BYTES + 1)
        complete = len(answer) <= ANSWER_BYTES and unsent is None
        return Exchange(sent, time.monotonic() - began, response.status, answer, kept=complete and not response.will_close)


def _break(connection: http.client.HTTPConnection) -> None:
    if connection.sock is not None:
        try:
            connection.sock.shutdown(2)
        except OSError:
            pass


@dataclass(frozen=True)
class Result:
    """What the service says of one record."""

    outcome: str
    reason: str | None


def results(sent: Batch, exchange: Exchange) -> dict[str, Result]:
    """The outcomes of an accepted batch by key; a `Failure` where Landfall wouldn't take the answer."""
    if not exchange.succeeded:
        raise Failure(_refused(exchange), exchange, _advice(exchange))
    if len(exchange.body) > ANSWER_BYTES:
        raise Failure(f"The answer is larger than {ANSWER_BYTES} bytes.", exchange, "Answer with key, outcome and a short reason only.")
    try:
        # Not json.loads(bytes): that would take UTF-16 and a byte order mark, which Landfall doesn't.
        answer = json.loads(exchange.body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_repeated_name)
        listed = answer["results"]
        if not isinstance(listed, list):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Failure(
            'The answer is not {"results": [...]} in JSON, each name once.',
            exchange,
            'Answer 200 with the body {"results": [{"key": "…", "outcome": "applied"}, …]}, in UTF-8 and not compressed.',
        ) from None
    found: dict[str, Result] = {}
    for entry in listed:
        result = _result(entry, exchange)
        key = entry["key"]
        if key in found:
            raise Failure(
                f"The record {key[:80]!r} has more than one result.", exchange, "Give one result for each record, with its `key` as it was sent."
            )
        found[key] = result
    missing = [key for key in sent.keys if key not in found]
    unasked = [key for key in found if key not in sent.keys]
    if missing or unasked:
        what = f"{len(missing)} of {len(sent.keys)} records have no result" + (f" (one of them: {missing[0][:80]!r})" if missing else "")
        if unasked:
            what += f", and {len(unasked)} results are for keys that were not sent (one of them: {unasked[0][:80]!r})"
        raise Failure(
            what + ".",
            exchange,
            "Give exactly one result for each record of the batch, also for one that you refuse, with its `key` character by character.",
        )
    return found


def _result(entry: object, exchange: Exchange) -> Result:
    if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
        raise Failure(
            "A result has no `key`, or one that is not a string.", exchange, "Put the record's `key` into its result, as the string that was sent."
        )
    if entry.get("outcome") not in OUTCOMES:
        raise Failure(f"The outcome {entry.get('outcome')!r} is unknown.", exchange, "Answer applied, unchanged, held or rejected, in lower case.")
    reason = entry.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise Failure("A `reason` is not a string.", exchange, "Make each reason a string, or leave it out.")
    return Result(entry["outcome"], reason)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _no_repeated_name(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return dict(pairs)


def _refused(exchange: Exchange) -> str:
    if exchange.status is None:
        return "The delivery got no answer; Landfall would deliver it again and again."
    if exchange.transient:
        return f"The delivery was answered {exchange.status}; Landfall would deliver it again and again."
    return f"The delivery was answered {exchange.status}; Landfall would end the file with a problem."


def _advice(exchange: Exchange) -> str:
    status = exchange.status
    if status is None:
        return "See that the URL is right, that the service runs and that its certificate is valid; then make it answer within the time-out."
    if 300 <= status < 400:
        return "Give the final URL: redirects are not followed."
    if status in (401, 403):
        return (
            "See that the service has the same secret, that it decodes the base64 behind `whsec_`, that it signs the body as it came (before any "
            "parsing), and that both clocks are right."
        )
    if status in (404, 405):
        return "See that the URL's path is the one at which your service takes POST requests."
    if status == 413:
        return "Allow request bodies of 4 MiB, also in the proxy or framework before your service."
    if status < 500:
        return "See in your service's log what it didn't like. A record that you don't want is `rejected` in a 200, not a reason to refuse the batch."
    return "See in your service's log what failed. A record that can never be taken is `rejected` in a 200; 5xx means that trying again can help."
