"""The checks: each a sentence that must hold, and a function that raises `Failure` where it doesn't, or returns notes."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from . import delivery
from .delivery import Batch, Exchange, Failure, Record, Result, Service

# The contract's five minutes, and a minute that both clocks may be apart.
TOO_OLD = 6 * 60

ROUNDS_AT_ONCE = 4

REFUSE = (
    "Before anything else compute HMAC-SHA256 over `webhook-id`, a dot, `webhook-timestamp`, a dot and the body's bytes, compare it with each "
    "`v1,` signature in constant time, and answer 401 when none is equal."
)
NOT_APPLIED = "Check the signature and the timestamp before you parse, store or remember anything of the request."
WITH_TEMPLATE = "Let the service take records of the tenant landfall-conformance, or give a record that it takes with --record."
REMEMBER = (
    "Store the answer under its `webhook-id` in the same transaction as the records, and answer a known `webhook-id` from there, without applying."
)


@dataclass
class Run:
    """One run against a service. All its keys and ids are new, so that runs don't meet."""

    service: Service
    secret: bytes
    label: str = "landfall-conformance.ndjson"
    # The partner's own record, with {key} and {revision} in its strings.
    template: object = None
    name: str = field(default_factory=lambda: f"{int(time.time())}-{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self.chain = f"conformance-{self.name}"
        self._numbers = count(1)

    def key(self) -> str:
        return f"{self.name}-{next(self._numbers)}"

    def identity(self) -> str:
        return hashlib.sha256(f"{self.name} {next(self._numbers)}".encode()).hexdigest()

    def record(self, key: str | None = None, revision: int = 1, padding: int = 0) -> Record:
        """A record, of at least `padding` bytes."""
        key = self.key() if key is None else key
        if self.template is None:
            value: object = {"id": key, "landfall_conformance": True, "revision": revision}
        else:
            value = _filled(self.template, {"{key}": key, "{revision}": str(revision)})
        text = delivery.compact(value)
        if padding and isinstance(value, dict):
            name = "landfall_conformance_padding"
            text = delivery.compact(value | {name: ""})
            text = delivery.compact(value | {name: "x" * (padding - len(text.encode()))})
        return Record(key, text)

    def records(self, number: int) -> list[Record]:
        return [self.record() for _ in range(number)]

    def batch(self, records: list[Record], label: str | None = None) -> Batch:
        return delivery.batch(self.identity(), self.chain, self.label if label is None else label, records)

    def pieces(self, content: bytes, label: str, transfer: str | None = None) -> list[Batch]:
        """The pieces of a raw file that no service knows."""
        return delivery.pieces(self.identity(), self.chain, label, content, transfer)

    def send(self, batch: Batch, sent: str) -> Exchange:
        """Delivers a batch, signed now."""
        return self.service.post(delivery.headers(self.secret, batch.identity, batch.body) | batch.headers, batch.body, sent)

    def outcomes(self, batch: Batch, sent: str) -> tuple[dict[str, Result], Exchange]:
        """Delivers a batch that must be accepted."""
        exchange = self.send(batch, sent)
        return delivery.results(batch, exchange), exchange

    def applied(self, batch: Batch, sent: str, advice: str = WITH_TEMPLATE) -> Exchange:
        """Delivers a batch whose records are all new or changed: each must be applied."""
        try:
            found, exchange = self.outcomes(batch, sent)
        except Failure as failure:
            status = failure.exchanges[0].status or 0
            # What the check is about explains a refusal better than its status does.
            raise Failure(failure.wrong, failure.exchanges, advice if 400 <= status < 500 and advice != WITH_TEMPLATE else failure.advice) from None
        others = {key: result for key, result in found.items() if result.outcome != "applied"}
        if others:
            key, result = next(iter(others.items()))
            raise Failure(
                f"The record {key[:80]!r} is {_said(result)}, but it must be applied: the service can't have it with this content.", exchange, advice
            )
        return exchange

    def refused(self, given: dict[str, str], batch: Batch, sent: str, advice: str) -> Exchange:
        """Sends a request that must be refused."""
        exchange = self.service.post(given, batch.body, sent)
        if exchange.status not in (401, 403):
            raise Failure("It was not refused with 401 or 403.", exchange, advice)
        return exchange

    def refused_without_effect(self, given: dict[str, str], batch: Batch, sent: str, advice: str) -> None:
        """Sends a request that must be refused, then the same batch well signed: its records must be new, and its id unknown."""
        first = self.refused(given, batch, sent, advice)
        try:
            self.applied(batch, "The same batch, well signed", NOT_APPLIED)
        except Failure as failure:
            raise Failure(
                f"The request was refused but left something behind. {failure.wrong}", [first, *failure.exchanges], failure.advice
            ) from None


def _filled(value: object, by: dict[str, str]) -> object:
    if isinstance(value, str):
        for name, text in by.items():
            value = value.replace(name, text)
        return value
    if isinstance(value, list):
        return [_filled(element, by) for element in value]
    if isinstance(value, dict):
        return {name: _filled(element, by) for name, element in value.items()}
    return value


def _said(result: Result) -> str:
    return f"`{result.outcome}`" + (f" (reason: {result.reason[:200]!r})" if result.reason else "")


def _same(first: dict[str, Result], second: dict[str, Result], exchanges: list[Exchange]) -> None:
    for key, result in first.items():
        if second[key].outcome != result.outcome:
            raise Failure(
                f"The record {key[:80]!r} was `{result.outcome}` first and is `{second[key].outcome}` when the batch comes again.",
                exchanges,
                REMEMBER,
            )


def _not_taken(found: dict[str, Result]) -> list[str]:
    """A note about records that the service doesn't take, which is its right."""
    others = [result for result in found.values() if result.outcome in ("held", "rejected")]
    return [f"{len(others)} of {len(found)} records are not taken; the first is {_said(others[0])}. They would be counted as such."] if others else []


def accepted(run: Run) -> list[str]:
    exchange = run.applied(run.batch(run.records(3)), "Three new records")
    if exchange.status != 200:
        return [f"The status is {exchange.status}. Landfall takes every 2xx; the contract says 200."]
    return []


def bytes_as_sent(run: Run) -> list[str]:
    batch = run.batch(run.records(2))
    body = batch.body.replace(b'{"version":1,"batch":', b'{ "version" : 1 ,\r\n\t"\\u0062atch" : ', 1) + b"\n"
    advice = "Take the request's bytes for the signature, not JSON that was parsed and written again."
    run.applied(Batch(batch.identity, batch.records, body), "A batch with other white space and escapes in its JSON", advice)
    return []


def wrong_signature(run: Run) -> list[str]:
    batch = run.batch(run.records(1))
    given = delivery.headers(bytes(reversed(run.secret)) + b"!", batch.identity, batch.body)
    run.refused_without_effect(given, batch, "A batch that is signed with another secret", REFUSE)
    batch = run.batch(run.records(1))
    given = delivery.headers(run.secret, batch.identity, batch.body) | {"webhook-signature": "v1,"}
    run.refused_without_effect(given, batch, "A batch with an empty signature", REFUSE)
    return []


def changed_body(run: Run) -> list[str]:
    batch = run.batch(run.records(1))
    given = delivery.headers(run.secret, batch.identity, batch.body + b" ")
    run.refused_without_effect(given, batch, "A body that is one byte shorter than the signed one", REFUSE)
    return []


def changed_id(run: Run) -> list[str]:
    batch = run.batch(run.records(1))
    given = delivery.headers(run.secret, run.identity(), batch.body) | {"webhook-id": batch.identity}
    run.refused_without_effect(given, batch, "A batch whose signature is of another `webhook-id`", REFUSE)
    return []


def changed_timestamp(run: Run) -> list[str]:
    batch = run.batch(run.records(1))
    given = delivery.headers(run.secret, batch.identity, batch.body, int(time.time()) - TOO_OLD) | {"webhook-timestamp": str(int(time.time()))}
    run.refused_without_effect(given, batch, "A batch whose signature is of an older `webhook-timestamp`", REFUSE)
    return []


def old_timestamp(run: Run) -> list[str]:
    batch = run.batch(run.records(1))
    given = delivery.headers(run.secret, batch.identity, batch.body, int(time.time()) - TOO_OLD)
    advice = "Answer 401 when `webhook-timestamp` is more than 300 seconds before your clock, and set the service's clock by NTP."
    run.refused_without_effect(given, batch, f"A well signed batch with a timestamp {TOO_OLD} s ago", advice)
    return []


def future_timestamp(run: Run) -> list[str]:
    batch = run.batch(run.records(1))
    given = delivery.headers(run.secret, batch.identity, batch.body, int(time.time()) + TOO_OLD)
    advice = "Answer 401 when `webhook-timestamp` is more than 300 seconds after your clock, and set the service's clock by NTP."
    run.refused_without_effect(given, batch, f"A well signed batch with a timestamp {TOO_OLD} s ahead", advice)
    return []


def missing_headers(run: Run) -> list[str]:
    batch = run.batch(run.records(1))
    advice = "Answer 401 when one of webhook-id, webhook-timestamp and webhook-signature is missing."
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        given = delivery.headers(run.secret, batch.identity, batch.body)
        del given[name]
        run.refused(given, batch, f"A batch without {name}", advice)
    run.refused_without_effect({}, batch, "A batch without any webhook header", advice)
    return []


def several_signatures(run: Run) -> list[str]:
    batch = run.batch(run.records(1))
    given = delivery.headers(run.secret, batch.identity, batch.body)
    other = delivery.signature(b"another secret of 24 bytes", batch.identity, 0, batch.body)
    given["webhook-signature"] = f"v1a,bm90IHlvdXJz {other} {given['webhook-signature']}"
    exchange = run.service.post(given, batch.body, "A batch with three signatures, the last of which is right")
    if not exchange.succeeded:
        raise Failure(
            "It was not accepted.",
            exchange,
            "Split `webhook-signature` at spaces, pass over what doesn't begin with `v1,`, and take the batch if one is equal.",
        )
    delivery.results(batch, exchange)
    return []


def repeated_batch(run: Run) -> list[str]:
    batch = run.batch(run.records(3))
    first = run.applied(batch, "Three new records")
    for what in ("The same batch again", "The same batch for the third time"):
        second, exchange = run.outcomes(batch, what)
        _same(delivery.results(batch, first), second, [first, exchange])
    return []


def partly_known_batch(run: Run) -> list[str]:
    known, new = run.records(2), run.records(2)
    run.applied(run.batch(known), "Two new records")
    batch = run.batch([new[0], known[0], new[1], known[1]])
    first, one = run.outcomes(batch, "Two new and two known records in one batch")
    for record in new:
        if first[record.key].outcome != "applied":
            raise Failure(f"The new record {record.key!r} is {_said(first[record.key])}, but it must be applied.", one, WITH_TEMPLATE)
    second, two = run.outcomes(batch, "The same batch again")
    _same(first, second, [one, two])
    return []


def known_record(run: Run) -> list[str]:
    record = run.record()
    run.applied(run.batch([record]), "A new record")
    found, exchange = run.outcomes(run.batch([record]), "The same record under another webhook-id")
    outcome = found[record.key]
    if outcome.outcome not in ("applied", "unchanged"):
        raise Failure(
            f"The record is {_said(outcome)}, although the service has it.",
            exchange,
            "Answer `unchanged` for a record that you have with this content_hash.",
        )
    if outcome.outcome == "applied":
        return [
            "The service says `applied` for what it has already. That is allowed if applying has no second effect, which can't be seen from here."
        ]
    return []


def changed_record(run: Run) -> list[str]:
    key = run.key()
    first, second = run.record(key, 1), run.record(key, 2)
    if first.text == second.text:
        return ["Not checked: the record of --record has no {revision}."]
    run.applied(run.batch([first]), "A new record")
    advice = "Compare the `content_hash` with the one that you stored under the key; where it differs, replace the record and answer `applied`."
    run.applied(run.batch([second]), "The record with another content", advice)
    run.applied(run.batch([first]), "The record with its first content, under a new webhook-id", advice)
    return []


def late_repetition(run: Run) -> list[str]:
    key = run.key()
    older, newer = run.batch([run.record(key, 1)]), run.batch([run.record(key, 2)])
    if older.records == newer.records:
        return ["Not checked: the record of --record has no {revision}."]
    first = run.applied(older, "A new record")
    run.applied(newer, "The record with another content")
    before, one = run.outcomes(run.batch(list(newer.records)), "The newer content under another webhook-id")
    again, two = run.outcomes(older, "The first batch again, late")
    _same(delivery.results(older, first), again, [first, two])
    after, three = run.outcomes(run.batch(list(newer.records)), "The newer content once more")
    if before[key].outcome == "applied":
        return ["The service says `applied` for what it has already, so an older content that came back could not be seen."]
    if after[key].outcome != before[key].outcome:
        raise Failure("The late repetition has put the older content back.", [first, one, two, three], REMEMBER)
    return []


def simultaneous(run: Run) -> list[str]:
    notes: list[str] = []
    for number in range(1, ROUNDS_AT_ONCE + 1):
        batch = run.batch(run.records(20))
        exchanges: list[Exchange] = []
        barrier = threading.Barrier(2)

        def deliver(batch: Batch = batch, exchanges: list[Exchange] = exchanges, barrier: threading.Barrier = barrier, number: int = number) -> None:
            barrier.wait(10)
            exchanges.append(run.send(batch, f"One of two simultaneous deliveries of the same batch, round {number}"))

        threads = [threading.Thread(target=deliver, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(run.service.timeout + 15)
        if all(exchange.transient for exchange in exchanges):
            raise Failure("Neither of them was accepted.", exchanges, "Let one of them through; the other one waits for it and gets the same answer.")
        # Busy is an answer too: Landfall comes again. What it gets then counts.
        if any(exchange.transient for exchange in exchanges):
            notes = ["One of two simultaneous deliveries was put off; Landfall delivers it again after a pause."]
        settled = [exchange for exchange in exchanges if not exchange.transient]
        settled.append(run.send(batch, "The same batch afterwards"))
        found = [delivery.results(batch, exchange) for exchange in settled]
        wrong = {key: result for answer in found for key, result in answer.items() if result.outcome != "applied"}
        if wrong:
            key, result = next(iter(wrong.items()))
            raise Failure(
                f"The record {key!r} is {_said(result)} in one of the answers: each delivery was applied for itself.",
                settled,
                "Lock the `webhook-id` before you look whether it is known; a unique key in the database does it. " + REMEMBER,
            )
    return notes


def largest_batch(run: Run) -> list[str]:
    each = delivery.BATCH_BYTES // delivery.BATCH_RECORDS + delivery.GROWTH_BYTES
    keys = [run.key() for _ in range(delivery.BATCH_RECORDS)]
    records = [run.record(key + "-" + "k" * (delivery.KEY_BYTES - len(key) - 1), padding=each) for key in keys]
    batch = run.batch(records)
    first, one = run.outcomes(batch, f"{len(records)} records in the largest batch")
    second, two = run.outcomes(batch, "The same batch again")
    _same(first, second, [one, two])
    return [*_not_taken(first), f"{len(batch.body)} bytes were answered in {one.seconds:.2f} s."]


def large_record(run: Run) -> list[str]:
    record = run.record(padding=delivery.RECORD_BYTES + delivery.GROWTH_BYTES)
    found, _ = run.outcomes(run.batch([record, run.record()]), f"A record of {len(record.text.encode())} bytes and a small one")
    return _not_taken(found)


def unusual_keys(run: Run) -> list[str]:
    tails = [
        *(
            "/../a b?c=d&e#f%20+",
            "\"quoted\" \\ and 'single'",
            "' OR 1=1 --",
            "<b>&amp;</b>",
            "line\nbreak\r\ttab",
            "\x00\x01\x1f\x7f",
            "\u2028\u2029",
        ),
        *("日本語", "👩‍👩‍👧", "עברית", "e\u0301", "\ufffd\uffff", "\U0010ffff", "null", "1.10", "1e+4", "{}", "k" * (delivery.KEY_BYTES - 64)),
    ]
    records = [run.record(f"{run.key()}{tail}") for tail in tails] + [run.record(f"__proto__{run.key()}"), run.record(f" {run.key()} ")]
    batch = run.batch(records)
    first, one = run.outcomes(batch, f"{len(records)} records with unusual keys")
    second, two = run.outcomes(batch, "The same batch again")
    _same(first, second, [one, two])
    return _not_taken(first)


def distinct_keys(run: Run) -> list[str]:
    start = run.key()
    tails = ("key", "KEY", "key ", "key\u200b", "k\u00e9y", "ke\u0301y", "key1", "key01", "key1.0", "stra\u00dfe", "strasse")
    records = [run.record(start + tail) for tail in tails]
    first, one = run.outcomes(run.batch(records), "Records whose keys differ in case, spaces, accents or zeros")
    taken = [record for record in records if first[record.key].outcome not in ("held", "rejected")]
    advice = "Compare keys byte by byte: use a binary collation for the key's column, and neither trim nor normalise it."
    for record in taken:
        if first[record.key].outcome == "unchanged":
            raise Failure(f"The new record {record.key!r} is taken for one that the service has.", one, advice)
    second, two = run.outcomes(run.batch(records), "The same records under another webhook-id")
    outcomes = {second[record.key].outcome for record in taken}
    if len(outcomes) > 1:
        changed = [record.key for record in taken if second[record.key].outcome != "unchanged"]
        raise Failure(f"Some of these keys are one key for the service: {', '.join(map(repr, changed))} came as changed.", [one, two], advice)
    notes = _not_taken(first)
    if outcomes == {"applied"}:
        notes.append("The service says `applied` for what it has already, so keys that it takes for one could not be seen.")
    return notes


def any_json(run: Run) -> list[str]:
    deep = '{"a":' * (delivery.NESTING - 1) + "[]" + "}" * (delivery.NESTING - 1)
    texts = [
        *("null", "true", '"text"', "12345678901234567890123", "0.1000000000000000000000000001", "1E400", "-0", "[]", "[1, 2,\n3]", "{}"),
        *('{"a": 1, "a": 2}', '{"": null, "__proto__": {"b": 1}}', '"\\u0000\\u00e9\\ud83d\\ude00"', '{"text":"日本語 👩‍👩‍👧 \\/"}', deep),
    ]
    records = [Record(run.key(), text) for text in texts]
    found, _ = run.outcomes(run.batch(records), "Records of every kind of JSON, one of them nested 127 deep")
    return _not_taken(found)


def unknown_fields(run: Run) -> list[str]:
    batch = run.batch(run.records(2))
    body = batch.body.replace(b'{"version":1,', b'{"version":1,"later":{"a":[1]},', 1).replace(b'{"key":', b'{"later":[null],"key":')
    run.applied(Batch(batch.identity, batch.records, body), "A batch with fields that no version has yet", "Pass over fields that you don't know.")
    return []


def empty_label(run: Run) -> list[str]:
    found, _ = run.outcomes(run.batch(run.records(2), label=""), "Two records of a file without a label")
    return _not_taken(found)


def kept_connection(run: Run) -> list[str]:
    batch = run.batch([run.record(padding=200_000)])
    connection = run.service.connect()
    try:
        bad = delivery.headers(run.secret, run.identity(), b"")
        first = run.service.post(bad, batch.body, "A batch with a wrong signature", connection)
        if first.status is None:
            raise Failure("It got no answer.", first, "Answer 401 in full before you close the connection.")
        if not first.kept:
            return ["The service closes the connection after a refusal, which is allowed."]
        given = delivery.headers(run.secret, batch.identity, batch.body)
        second = run.service.post(given, batch.body, "The batch, well signed, on the same connection", connection)
        try:
            delivery.results(batch, second)
        except Failure as failure:
            raise Failure(
                failure.wrong, [first, second], "Read the whole body of a request that you refuse, or answer `connection: close` and close."
            ) from None
    finally:
        connection.close()
    return []


# Two whole pieces and three bytes, of which no two pieces are equal, with what a text must not hold.
RAW_CONTENT = (bytes(range(256)) * (delivery.PIECE_BYTES // 128 + 1))[3 : 2 * delivery.PIECE_BYTES + 6]
RAW_ADVICE = "Take bodies of application/octet-stream: the header landfall-piece says which piece of which file each is."


def _raw_file(run: Run, content: bytes, label: str, transfer: str | None = None) -> tuple[list[Batch], list[Result], list[Exchange]]:
    pieces, found, exchanges = run.pieces(content, label, transfer), [], []
    for number, piece in enumerate(pieces, 1):
        try:
            result, exchange = run.outcomes(piece, f"Piece {number} of {len(pieces)} of a raw file")
        except Failure as failure:
            raise Failure(failure.wrong, failure.exchanges, RAW_ADVICE if failure.exchanges[0].status in (400, 415) else failure.advice) from None
        found.append(result[piece.keys[0]])
        exchanges.append(exchange)
    return pieces, found, exchanges


def _all_applied(found: list[Result], exchanges: list[Exchange]) -> None:
    for result, exchange in zip(found, exchanges, strict=True):
        if result.outcome != "applied":
            raise Failure(f"The piece is {_said(result)}, but it must be applied: the service can't have it.", exchange, RAW_ADVICE)


def raw_file(run: Run) -> list[str]:
    _, found, exchanges = _raw_file(run, RAW_CONTENT, f"{run.name} für alle \"1\".png")
    _all_applied(found, exchanges)
    return []


def raw_empty(run: Run) -> list[str]:
    _, found, exchanges = _raw_file(run, b"", f"{run.name}-empty")
    _all_applied(found, exchanges)
    return []


def raw_repeated(run: Run) -> list[str]:
    pieces = run.pieces(RAW_CONTENT, f"{run.name}-repeated")
    first = []
    for piece in pieces:
        found, exchange = run.outcomes(piece, "A piece of a raw file")
        first.append((found, exchange))
        again, repeated = run.outcomes(piece, "The same piece again")
        _same(found, again, [exchange, repeated])
    for piece, (found, exchange) in zip(pieces, first, strict=True):
        again, repeated = run.outcomes(piece, "The same piece again, after the last one")
        _same(found, again, [exchange, repeated])
    return []


def raw_changed_fields(run: Run) -> list[str]:
    (piece,) = run.pieces(b"one piece", f"{run.name}-fields")
    for what, before, after in (("label", run.name, f"{run.name}0"), ("length", '"length":9', '"length":8')):
        changed = piece.headers | {"landfall-piece": piece.headers["landfall-piece"].replace(before, after, 1)}
        given = delivery.headers(run.secret, piece.identity, piece.body) | changed
        advice = "Answer 401 unless the SHA-256 of the header landfall-piece, in hexadecimal, is the `webhook-id`: so the signature covers the header, too."
        run.refused(given, piece, f"A piece of a raw file whose {what} was changed in the header", advice)
    run.applied(piece, "The same piece, with the header that was signed", NOT_APPLIED)
    return []


def raw_again(run: Run) -> list[str]:
    label = f"{run.name}-again"
    _, found, exchanges = _raw_file(run, RAW_CONTENT, label)
    _all_applied(found, exchanges)
    _, found, exchanges = _raw_file(run, RAW_CONTENT, label, f"{run.chain}-2")
    if found[-1].outcome not in ("applied", "unchanged"):
        raise Failure(f"The file is {_said(found[-1])}, although the service has it.", exchanges[-1], "Answer `unchanged` for a file that you have.")
    changed, found, exchanges = _raw_file(run, RAW_CONTENT[:-1], label, f"{run.chain}-3")
    if found[-1].outcome != "applied":
        raise Failure(f"The changed file is {_said(found[-1])}.", exchanges[-1], "Compare `file_hash`, and replace the file where it differs.")
    return []


def in_time(run: Run) -> list[str]:
    records = [run.record(padding=20_000) for _ in range(90)]
    _, exchange = run.outcomes(run.batch(records), "90 records of 20 kB, as Landfall sends them by default")
    slowest = max(run.service.slowest, exchange.seconds)
    if slowest > run.service.timeout / 2:
        return [
            f"The slowest answer took {slowest:.1f} s, more than half of the time-out. Answer faster, raise `sink.timeout`, or make batches smaller "
            "with `limits.batch_records`."
        ]
    return [f"The slowest answer took {slowest:.2f} s."]


@dataclass(frozen=True)
class Check:
    """A named sentence that must hold."""

    name: str
    must_hold: str
    run: Callable[[Run], list[str]]
    # Whether it is only for services that take raw files.
    raw: bool = False


CHECKS = [
    Check("accepted", "A signed batch is accepted, and each of its new records has exactly one result, `applied`, in any order.", accepted),
    Check("bytes-as-sent", "The signature is checked over the body's bytes as they came, whatever their spacing.", bytes_as_sent),
    Check("wrong-signature", "A delivery with a wrong signature is refused with 401 or 403, and nothing of it is applied.", wrong_signature),
    Check("changed-body", "A delivery whose body was changed is refused with 401 or 403, and nothing of it is applied.", changed_body),
    Check("changed-id", "A delivery whose webhook-id was changed is refused with 401 or 403, and nothing of it is applied.", changed_id),
    Check(
        "changed-timestamp",
        "A delivery whose webhook-timestamp was changed is refused with 401 or 403, and nothing of it is applied.",
        changed_timestamp,
    ),
    Check(
        "old-timestamp",
        "A delivery that was signed more than five minutes ago is refused with 401 or 403, and nothing of it is applied.",
        old_timestamp,
    ),
    Check(
        "future-timestamp",
        "A delivery that is signed more than five minutes ahead is refused with 401 or 403, and nothing of it is applied.",
        future_timestamp,
    ),
    Check(
        "missing-headers",
        "A delivery without one of the three webhook headers is refused with 401 or 403, and nothing of it is applied.",
        missing_headers,
    ),
    Check("several-signatures", "One right signature among several in webhook-signature is enough.", several_signatures),
    Check("repeated-batch", "The same batch again under the same webhook-id gives the same outcomes, and applies nothing twice.", repeated_batch),
    Check(
        "partly-known-batch",
        "A batch of new and known records applies the new ones, and gives the same outcomes when it comes again.",
        partly_known_batch,
    ),
    Check("known-record", "A known record under another webhook-id is `unchanged`, or `applied` without a second effect.", known_record),
    Check("changed-record", "A record whose content changed is applied, and applied again when it changes back.", changed_record),
    Check(
        "late-repetition", "A batch that comes again late, after a newer content of its record, doesn't put the older content back.", late_repetition
    ),
    Check("simultaneous", "Two simultaneous deliveries of the same batch give the same outcomes, and apply nothing twice.", simultaneous),
    Check("largest-batch", "A batch of the largest size (99 records, long keys, 2.5 MB of records) is answered, record by record.", largest_batch),
    Check("large-record", "A record of 1 MiB is answered like others.", large_record),
    Check("unusual-keys", "Keys with any characters, of up to 1024 bytes, come back as they were sent.", unusual_keys),
    Check("distinct-keys", "Keys that differ in case, spaces, accents or zeros are different records.", distinct_keys),
    Check("any-json", "A record may be any JSON value, nested up to 127 deep, and has its own outcome.", any_json),
    Check("unknown-fields", "Unknown fields in the body are passed over.", unknown_fields),
    Check("empty-label", "A batch with an empty label is answered, record by record.", empty_label),
    Check(
        "kept-connection",
        "After a refused delivery the next one on the same connection is answered, unless the service closes it with `connection: close`.",
        kept_connection,
    ),
    Check("raw-file", "The pieces of a raw file are answered, each with one result whose key is the file.", raw_file, raw=True),
    Check("raw-empty", "An empty raw file is one piece without bytes.", raw_empty, raw=True),
    Check("raw-repeated", "The same piece again gives the same outcome, also after the last one.", raw_repeated, raw=True),
    Check("raw-changed-fields", "A piece whose description was changed is refused with 401 or 403.", raw_changed_fields, raw=True),
    Check("raw-again", "A raw file that comes again in a re-run is `unchanged` or `applied`, and a changed one is `applied`.", raw_again, raw=True),
    Check("in-time", "Every answer is complete within the time-out.", in_time),
]


def read_template(text: str) -> object:
    """The record of --record."""
    try:
        template = json.loads(text)
    except ValueError as error:
        raise delivery.UnusableArgument(f"The file of --record is not JSON: {error}. Give one record that your service takes.") from None
    if "{key}" not in text:
        raise delivery.UnusableArgument(
            'No string of the record of --record holds {key}. Put it where the record\'s identity stands, such as {"id": "{key}"}.'
        )
    return template
