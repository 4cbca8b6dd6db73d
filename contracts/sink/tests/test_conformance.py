"""The conformance test against the Python example, which must pass, and against receivers with one defect each, which must not."""

from __future__ import annotations

import contextlib
import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "python")]

import receiver  # noqa: E402
from conformance import delivery  # noqa: E402
from conformance.checks import CHECKS  # noqa: E402
from receiver import Handler, Receiver, Refused, Store, check_signature  # noqa: E402

SECRET = "whsec_bGFuZGZhbGwtZXhhbXBsZS1zZWNyZXQtMzItYnl0ZXM="
RUN_SECONDS = 60


class QuietHandler(Handler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(subject: Receiver, handler: type[Handler] = QuietHandler) -> Iterator[str]:
    server = receiver.serve("127.0.0.1", 0, subject)
    server.RequestHandlerClass = handler
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/batches"
    finally:
        server.shutdown()
        server.server_close()


def conform(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conformance", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)


def run(subject: Receiver, *arguments: str, handler: type[Handler] = QuietHandler) -> subprocess.CompletedProcess[str]:
    with serving(subject, handler) as url:
        return conform("--url", url, "--secret", SECRET, "--timeout", "10", *arguments)


def good(store: Store | None = None, kind: type[Receiver] = Receiver) -> Receiver:
    return kind(receiver.read_secrets(SECRET), store or Store(":memory:"))


def lines(printed: str, outcome: str) -> list[str]:
    return [line.split()[1] for line in printed.splitlines() if line.startswith(f"{outcome} ")]


# The example, and what is allowed beside it.


def test_the_python_example_passes_every_check():
    done = run(good(), "--raw")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines(done.stdout, "PASS") == [check.name for check in CHECKS]
    assert f"All {len(CHECKS)} checks hold." in done.stdout


def test_a_service_that_takes_no_raw_files_is_not_asked_for_them():
    class TakesNone(Store):
        def take_piece(self, identity, piece, content):
            raise Refused(415, "Records only.")

    done = run(good(TakesNone(":memory:")))
    assert done.returncode == 0, done.stdout
    assert lines(done.stdout, "PASS") == [check.name for check in CHECKS if not check.raw]
    done = run(good(TakesNone(":memory:")), "--only", "raw-file")
    assert done.returncode == 1 and "Take bodies of application/octet-stream" in done.stdout


def test_the_python_example_keeps_a_raw_file_byte_by_byte_and_only_once():
    store, secret = Store(":memory:"), delivery.secret_bytes(SECRET)
    content = bytes(range(256)) * 20_000
    with serving(good(store)) as url:
        service = delivery.Service(url, 10)
        for number, transfer in enumerate(("chain", "chain-2")):
            for piece in delivery.pieces(str(number) * 64, "chain", "logo.png", content, transfer):
                exchange = service.post(delivery.headers(secret, piece.identity, piece.body) | piece.headers, piece.body, "A piece")
                outcome = delivery.results(piece, exchange)[piece.keys[0]].outcome
        assert outcome == "unchanged"
    kept = store._connection.execute("SELECT file, content FROM pieces ORDER BY offset").fetchall()
    assert {file for file, _ in kept} == {"0" * 64}
    assert b"".join(piece for _, piece in kept) == content


def test_a_raw_file_with_a_piece_missing_is_not_taken():
    store, secret = Store(":memory:"), delivery.secret_bytes(SECRET)
    first, last = delivery.pieces("f" * 64, "chain", "logo.png", bytes(delivery.PIECE_BYTES + 1))
    with serving(good(store)) as url:
        exchange = delivery.Service(url, 10).post(delivery.headers(secret, last.identity, last.body) | last.headers, last.body, "The last piece")
    assert delivery.results(last, exchange)["f" * 64].outcome == "rejected"
    assert first.identity != last.identity


def test_results_may_come_in_any_order_and_with_more_fields():
    class Reversed(Receiver):
        def receive(self, headers, body):
            results = json.loads(super().receive(headers, body))["results"]
            return json.dumps({"results": [result | {"more": 1} for result in reversed(results)], "more": {}})

    done = run(good(kind=Reversed))
    assert done.returncode == 0, done.stdout


def test_a_service_with_records_of_its_own_passes_with_one_as_template(tmp_path, monkeypatch):
    monkeypatch.setattr(receiver, "refusal", lambda record: None if isinstance(record, dict) and "space" in record else "it has no space")
    without = run(good())
    assert without.returncode == 1
    assert "it has no space" in without.stdout and "--record" in without.stdout
    template = tmp_path / "record.json"
    template.write_text('{"id": "{key}", "space": "DOCS", "title": "Revision {revision}"}')
    done = run(good(), "--record", str(template))
    assert done.returncode == 0, done.stdout


def test_a_batch_is_known_after_a_restart(tmp_path):
    path = str(tmp_path / "store.sqlite3")
    secret = delivery.secret_bytes(SECRET)
    batch = delivery.batch("f" * 64, "chain", "a.ndjson", [delivery.Record("1", '{"id":1.10}')])
    answers = []
    for _ in range(2):
        with serving(good(Store(path))) as url:
            exchange = delivery.Service(url, 10).post(delivery.headers(secret, batch.identity, batch.body), batch.body, "A batch")
            answers.append(delivery.results(batch, exchange)["1"].outcome)
    assert answers == ["applied", "applied"]


def test_two_secrets_are_taken_while_one_replaces_the_other():
    subject = Receiver(receiver.read_secrets(f"whsec_{'b2xk' * 8} {SECRET}"), Store(":memory:"))
    done = run(subject, "--only", "accepted", "--only", "wrong-signature")
    assert done.returncode == 0, done.stdout


# Receivers with a defect.


class AcceptsAnySignature(Receiver):
    def check(self, headers, body):
        return headers.get("webhook-id", "")


class Forgetful(Store):
    """Knows records, but no deliveries."""

    def known_answer(self, identity):
        self._connection.execute("DELETE FROM deliveries WHERE webhook_id = ?", (identity,))


class Amnesiac(Forgetful):
    """Knows nothing at all, and applies everything each time."""

    def known_answer(self, identity):
        super().known_answer(identity)
        self._connection.execute("DELETE FROM records")


class LosesOneOutcome(Receiver):
    def receive(self, headers, body):
        return json.dumps({"results": json.loads(super().receive(headers, body))["results"][:-1]})


def test_a_receiver_that_accepts_any_signature_fails():
    done = run(good(kind=AcceptsAnySignature))
    assert done.returncode == 1
    expected = ["wrong-signature", "changed-body", "changed-id", "changed-timestamp", "old-timestamp", "future-timestamp", "missing-headers"]
    assert lines(done.stdout, "FAIL") == expected
    assert "Wrong: It was not refused with 401 or 403." in done.stdout
    assert 'Back:  200 {"results"' in done.stdout
    assert "Do:    Before anything else compute HMAC-SHA256" in done.stdout


def test_a_receiver_that_forgets_deliveries_fails():
    done = run(good(Forgetful(":memory:")))
    assert done.returncode == 1
    failed = lines(done.stdout, "FAIL")
    assert {"repeated-batch", "partly-known-batch", "late-repetition", "simultaneous"} <= set(failed), done.stdout
    assert "was `applied` first and is `unchanged` when the batch comes again." in done.stdout
    assert "The late repetition has put the older content back." in done.stdout
    assert "Do:    Store the answer under its `webhook-id`" in done.stdout


def test_a_receiver_that_loses_an_outcome_fails():
    done = run(good(kind=LosesOneOutcome))
    assert done.returncode == 1
    assert lines(done.stdout, "FAIL") == ["accepted"]
    assert "Wrong: 1 of 3 records have no result (one of them: " in done.stdout
    assert "Do:    Give exactly one result for each record of the batch" in done.stdout
    assert f"the other {sum(not check.raw for check in CHECKS) - 1} checks were left out" in done.stdout


def test_what_outcomes_can_not_show_is_at_least_noted():
    done = run(good(Amnesiac(":memory:")), "--only", "known-record", "--only", "late-repetition", "--only", "distinct-keys")
    assert done.returncode == 0
    assert done.stdout.count("Note:  The service says `applied` for what it has already") == 3


class SignsParsedBody(Receiver):
    def check(self, headers, body):
        return super().check(headers, delivery.compact(json.loads(body)).encode())


class LeavesTimeAlone(Receiver):
    def check(self, headers, body):
        expected = delivery.signature(self.secrets[0], headers["webhook-id"], int(headers["webhook-timestamp"]), body)
        if headers["webhook-signature"] != expected:
            raise Refused(401, "The signature is wrong.")
        return headers["webhook-id"]


class TakesUnsigned(Receiver):
    def check(self, headers, body):
        return super().check(headers, body) if "webhook-signature" in headers else headers["webhook-id"]


class AnswersMissingHeaderWith400(Receiver):
    def check(self, headers, body):
        if "webhook-timestamp" not in headers:
            raise Refused(400, "No timestamp.")
        return super().check(headers, body)


class AppliesBeforeItChecks(Receiver):
    def receive(self, headers, body):
        self.store.take(delivery.signature(b"", "", 0, body), json.loads(body))
        return super().receive(headers, body)


class TakesOneSignature(Receiver):
    def check(self, headers, body):
        if " " in headers.get("webhook-signature", ""):
            raise Refused(401, "The signature is wrong.")
        return super().check(headers, body)


class RefusesRepetitions(Receiver):
    def receive(self, headers, body):
        if self.store.known_answer(headers.get("webhook-id")):
            raise Refused(409, "This batch is known.")
        return super().receive(headers, body)


class LooksBeforeItLocks(Receiver):
    def receive(self, headers, body):
        identity = self.check(headers, body)
        known = self.store.known_answer(identity)
        time.sleep(0.05)
        return known or Forgetful.take(self.store, identity, json.loads(body))


class KeepsTheFirst(Store):
    def _apply(self, batch, entry):
        place = (batch["chain"], entry["key"])
        found = self._connection.execute("SELECT 1 FROM records WHERE chain = ? AND key = ?", place).fetchone()
        return {"key": entry["key"], "outcome": "unchanged"} if found else super()._apply(batch, entry)


class RejectsKnownRecords(Store):
    def _apply(self, batch, entry):
        result = super()._apply(batch, entry)
        return result | {"outcome": "rejected"} if result["outcome"] == "unchanged" else result


class IgnoresCase(Store):
    def _apply(self, batch, entry):
        return super()._apply(batch, entry | {"key": entry["key"].lower()}) | {"key": entry["key"]}


class TrimsKeys(Store):
    def _apply(self, batch, entry):
        return super()._apply(batch, entry | {"key": entry["key"].strip()})


class LeavesPiecesUnchecked(Receiver):
    def receive(self, headers, body):
        if "landfall-piece" in headers:
            identity = self.check(headers, body)
            return self.store.take_piece(identity, json.loads(headers["landfall-piece"]), body)
        return super().receive(headers, body)


class NoEmptyFiles(Store):
    def _keep(self, piece, content):
        return super()._keep(piece, content) if content else {"outcome": "rejected", "reason": "empty"}


class KeepsTheFirstFile(Store):
    def _keep(self, piece, content):
        place = (piece["label"],)
        known = piece["last"] and self._connection.execute("SELECT 1 FROM files WHERE label = ?", place).fetchone()
        return {"outcome": "unchanged"} if known else super()._keep(piece, content)


class RefusesFurtherPieces(Store):
    """Takes pieces for new ones only, which a lost answer makes impossible."""

    def known_answer(self, identity):
        return None

    def _keep(self, piece, content):
        place = (piece["file"], piece["offset"])
        known = self._connection.execute("SELECT 1 FROM pieces WHERE file = ? AND offset = ?", place).fetchone()
        self._connection.execute("DELETE FROM deliveries")
        return {"outcome": "rejected", "reason": "known"} if known else super()._keep(piece, content)


def judging(refuses):
    """A receiver that refuses a whole batch where it should say something of its records."""

    class Judging(Receiver):
        def receive(self, headers, body):
            if refuses(json.loads(body)):
                raise Refused(400, "The body is invalid.")
            return super().receive(headers, body)

    return Judging


class Slow(Receiver):
    def receive(self, headers, body):
        time.sleep(1.0)
        return super().receive(headers, body)


class SmallBodies(QuietHandler):
    def _body(self):
        if int(self.headers["content-length"]) > 1024 * 1024:
            self.close_connection = True
            raise Refused(413, "Too large.")
        return super()._body()


class LeavesBodiesUnread(QuietHandler):
    def _body(self):
        try:
            check_signature(self.server.receiver.secrets, self.headers, b"")
        except Refused:
            return super()._body()
        raise Refused(401, "This is the signature of an empty body.")


DEFECTS = [
    ("bytes-as-sent", SignsParsedBody, Store, QuietHandler, "Take the request's bytes for the signature"),
    ("changed-id", AcceptsAnySignature, Store, QuietHandler, "was not refused"),
    ("changed-timestamp", AcceptsAnySignature, Store, QuietHandler, "was not refused"),
    ("old-timestamp", LeavesTimeAlone, Store, QuietHandler, "more than 300 seconds before your clock"),
    ("future-timestamp", LeavesTimeAlone, Store, QuietHandler, "more than 300 seconds after your clock"),
    ("missing-headers", TakesUnsigned, Store, QuietHandler, "A batch without webhook-signature: POST"),
    ("missing-headers", AnswersMissingHeaderWith400, Store, QuietHandler, "Answer 401 when one of"),
    ("wrong-signature", AppliesBeforeItChecks, Store, QuietHandler, "refused but left something behind"),
    ("several-signatures", TakesOneSignature, Store, QuietHandler, "Split `webhook-signature` at spaces"),
    ("repeated-batch", RefusesRepetitions, Store, QuietHandler, "answered 409; Landfall would end the file"),
    ("simultaneous", LooksBeforeItLocks, Forgetful, QuietHandler, "each delivery was applied for itself"),
    ("changed-record", Receiver, KeepsTheFirst, QuietHandler, "Compare the `content_hash`"),
    ("known-record", Receiver, RejectsKnownRecords, QuietHandler, "although the service has it"),
    ("distinct-keys", Receiver, IgnoresCase, QuietHandler, "are one key for the service"),
    ("unusual-keys", Receiver, TrimsKeys, QuietHandler, "results are for keys that were not sent"),
    ("largest-batch", Receiver, Store, SmallBodies, "Allow request bodies of 4 MiB"),
    ("large-record", Receiver, Store, SmallBodies, "Allow request bodies of 4 MiB"),
    ("any-json", judging(lambda batch: batch["records"][0]["record"] is None), Store, QuietHandler, "answered 400; Landfall would end the file"),
    ("unknown-fields", judging(lambda batch: "later" in batch), Store, QuietHandler, "Pass over fields that you don't know"),
    ("empty-label", judging(lambda batch: not batch["label"]), Store, QuietHandler, "See in your service's log what it didn't like"),
    ("raw-changed-fields", LeavesPiecesUnchecked, Store, QuietHandler, "unless the SHA-256 of the header landfall-piece"),
    ("raw-empty", Receiver, NoEmptyFiles, QuietHandler, "The piece is `rejected` (reason: 'empty')"),
    ("raw-again", Receiver, KeepsTheFirstFile, QuietHandler, "Compare `file_hash`"),
    ("raw-repeated", Receiver, RefusesFurtherPieces, QuietHandler, "was `applied` first and is `rejected` when"),
    ("kept-connection", Receiver, Store, LeavesBodiesUnread, "Read the whole body of a request that you refuse"),
]


@pytest.mark.parametrize(
    ("check", "kind", "store", "handler", "sentence"), DEFECTS, ids=[f"{defect[0]}-{number}" for number, defect in enumerate(DEFECTS)]
)
def test_a_defect_is_found(check, kind, store, handler, sentence):
    done = run(good(store(":memory:"), kind), "--only", check, handler=handler)
    assert done.returncode == 1, done.stdout + done.stderr
    assert lines(done.stdout, "FAIL") == [check]
    assert sentence in done.stdout


def test_a_slow_service_fails_in_bounded_time():
    began = time.monotonic()
    with serving(good(kind=Slow)) as url:
        done = conform("--url", url, "--secret", SECRET, "--timeout", "0.3", "--only", "in-time")
    assert done.returncode == 1
    assert "No complete answer within 0.3 s" in done.stdout
    assert time.monotonic() - began < 10


class Dripping(QuietHandler):
    """Sends a byte now and then: no single wait is long, but the answer is never complete."""

    def _answer(self, status, body):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.05)


def test_a_dripping_answer_ends_with_the_time_out():
    began = time.monotonic()
    with serving(good(), Dripping) as url:
        done = conform("--url", url, "--secret", SECRET, "--timeout", "0.5", "--only", "accepted")
    assert "No complete answer within 0.5 s" in done.stdout
    assert time.monotonic() - began < 4


# What Landfall takes for an answer.

ONE = '{"key":"a","outcome":"applied"}'
TWO = '{"key":"b","outcome":"held","reason":"later"}'


def outcomes(body: str | bytes, status: int = 200) -> str:
    batch = delivery.batch("1", "chain", "", [delivery.Record("a", "1"), delivery.Record("b", "2")])
    body = body.encode() if isinstance(body, str) else body
    try:
        found = delivery.results(batch, delivery.Exchange("A batch", 0.1, status, body))
    except delivery.Failure as failure:
        return failure.wrong
    return " ".join(f"{key}={result.outcome}" for key, result in sorted(found.items()))


def test_answers_that_landfall_takes():
    assert outcomes(f'{{"results":[{TWO},{ONE}],"x":1}}') == "a=applied b=held"
    assert outcomes(f' {{"results": [{ONE},\n{TWO.replace(chr(34) + "later" + chr(34), "null")}]}} ', 201) == "a=applied b=held"


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("", "The answer is not"),
        ("[]", "The answer is not"),
        ("{}", "The answer is not"),
        ('{"results":{}}', "The answer is not"),
        (f'{{"results":[{ONE},{TWO}],"results":[]}}', "The answer is not"),
        (f'{{"results":[{ONE},{TWO}],"x":NaN}}', "The answer is not"),
        (f'\ufeff{{"results":[{ONE},{TWO}]}}', "The answer is not"),
        (gzip.compress(f'{{"results":[{ONE},{TWO}]}}'.encode()), "The answer is not"),
        (f'{{"results":[{ONE}]}}', "1 of 2 records have no result"),
        (f'{{"results":[{ONE},{TWO},{ONE}]}}', "The record 'a' has more than one result."),
        (f'{{"results":[{ONE},{TWO.replace("b", "c", 1)}]}}', "1 of 2 records have no result"),
        (f'{{"results":[{ONE},{TWO},{ONE.replace("a", "c", 1)}]}}', "0 of 2 records have no result, and 1 results are for keys"),
        (f'{{"results":[{ONE},{TWO.replace("held", "stored")}]}}', "The outcome 'stored' is unknown."),
        (f'{{"results":[{ONE},{TWO.replace(chr(34) + "later" + chr(34), "5")}]}}', "A `reason` is not a string."),
        (f'{{"results":[{ONE},{TWO.replace(chr(34) + "b" + chr(34), "2")}]}}', "A result has no `key`"),
        (" " * 1_048_577, "The answer is larger than 1048576 bytes."),
    ],
)
def test_answers_that_landfall_does_not_take(body, wrong):
    assert outcomes(body).startswith(wrong)


@pytest.mark.parametrize(
    ("status", "what"), [(204, "The answer is not"), (302, "end the file"), (404, "end the file"), (429, "again and again"), (503, "again and again")]
)
def test_statuses_that_landfall_does_not_take(status, what):
    assert what in outcomes("", status)


# The command line.


def test_the_list_and_the_help_need_no_service():
    listed = conform("--list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [check.name for check in CHECKS]
    assert "landfall-conformance" in conform("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give the service's URL with --url."),
        (["--url", "ftp://a"], "The URL must be"),
        (["--url", "https://user@a/"], "Landfall takes no URL with a user"),
        (["--url", "http://127.0.0.1:1/", "--secret", "secret"], 'The secret must be "whsec_"'),
        (["--url", "http://127.0.0.1:1/", "--secret", SECRET, "--only", "nothing"], "There is no check 'nothing'."),
        (["--url", "http://127.0.0.1:1/", "--secret", SECRET, "--timeout", "0"], "The time-out must be above 0"),
        (["--url", "http://127.0.0.1:1/", "--secret", SECRET, "--record", "nowhere.json"], "The file of --record can't be read"),
    ],
)
def test_arguments_that_can_not_be_used_are_told(arguments, message):
    done = conform(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_service_that_is_not_there_is_told():
    done = conform("--url", "http://127.0.0.1:1/", "--secret", SECRET)
    assert done.returncode == 1
    assert "Back:  No answer: ConnectionRefusedError" in done.stdout


# The contract's own example.


def test_the_openapi_example_verifies(monkeypatch):
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load((ROOT / "openapi.yaml").read_text(encoding="utf-8"))
    example = document["paths"]["/batches"]["post"]["requestBody"]["content"]["application/json"]["examples"]["two_records"]
    parameters = {name: str(parameter["example"]) for name, parameter in by_name(document).items() if "example" in parameter}
    body = example["x-exact-body"].encode()
    assert f"({len(body)} bytes" in example["description"]
    assert json.loads(body) == example["value"]
    assert example["value"]["batch"] == parameters["webhook-id"]
    monkeypatch.setattr(receiver.time, "time", lambda: float(parameters["webhook-timestamp"]))
    assert check_signature(receiver.read_secrets(example["x-secret"]), parameters, body) == parameters["webhook-id"]
    for record in example["value"]["records"]:
        start = body.index(b'"record":', body.index(record["content_hash"].encode())) + len(b'"record":')
        text = body[start : body.index(b"}", start) + 1].decode()
        assert delivery.Record(record["key"], text).content_hash == record["content_hash"]


def by_name(document: dict) -> dict[str, dict]:
    return {parameter["name"]: parameter for parameter in document["components"]["parameters"].values()}


def test_the_openapi_example_of_a_piece_is_the_last_one_of_its_file():
    yaml = pytest.importorskip("yaml")
    document = yaml.safe_load((ROOT / "openapi.yaml").read_text(encoding="utf-8"))
    example = by_name(document)["landfall-piece"]["content"]["application/json"]["example"]
    content = bytes(delivery.PIECE_BYTES) + b"hello"
    last = delivery.pieces(example["file"], example["chain"], example["label"], content, example["transfer"])[-1]
    assert json.loads(last.headers["landfall-piece"]) | {"tenant": example["tenant"]} == example
    assert receiver.check_piece(last.identity, last.headers)["last"] is True


def test_the_openapi_document_is_valid():
    yaml = pytest.importorskip("yaml")
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(yaml.safe_load((ROOT / "openapi.yaml").read_text(encoding="utf-8")))
