"""One scenario through both flavours, by one deployment and one declaration: the target, the ledger and the receipt don't tell which it was."""

import base64
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import App, Declaration
from landfall_local import receipt

SCENARIO = json.loads((Path(__file__).parent / "scenarios" / "a-wave.json").read_text())
ATTEMPTS = ("first", "second")
COUNTS = {
    "first": {"read": 783, "applied": 763, "unchanged": 0, "held": 10, "rejected": 10},
    "second": {"read": 783, "applied": 22, "unchanged": 761, "held": 0, "rejected": 0},
}

# What says whose attempt it was, and when: nothing else of a receipt may differ.
OF_THE_ATTEMPT = {"tenant", "transfer", "chain", "settled_at_ms", "issued_at_ms"}
# With which word, and by whose doing. Connect's platform takes our INCOMPLETE. Forge's has no such word: it says FAILED of a migration with
# a failed message.
SETTLED = {
    ("connect", "first"): {"status": "INCOMPLETE", "settled_by": "app"},
    ("forge", "first"): {"status": "FAILED", "settled_by": "app"},
    ("connect", "second"): {"status": "SUCCESS", "settled_by": "app"},
    ("forge", "second"): {"status": "SUCCESS", "settled_by": "app"},
}

# What of a file's row says whose it was, when that was, how often a worker took it up, and how Forge was answered.
OF_THE_FILE = {"pk", "sk", "message_id"}
OF_THE_WORK = {"received_at", "taken_at", "ended_at", "expires_at", "fence", "attempts"}
ONLY_FORGE = {"answer", "answer_to", "answered_at"}


@dataclass(frozen=True)
class Attempt:
    """One run of the scenario, and what it left."""

    app: App
    flavour: str
    number: str
    identifier: str
    # With receipt.json, exceptions.jsonl and exceptions.csv.
    folder: Path
    receipt: dict

    def labels(self) -> dict[str, str]:
        """The label of each file, by the key that the platform gave it."""
        return {file["file"]: file["label"] for file in self.receipt["files"]}

    def rows(self, prefix: str) -> list[dict]:
        """Rows of the transfer, in their order."""
        return self.app.tracking.rows(self.app.tracking.partition(self.app.tenant, self.identifier), prefix)


@pytest.fixture(scope="module")
def attempts(world, tmp_path_factory):
    """Both attempts on Connect and on Forge, by number. Each pair meets the same mappings: the second's come between."""
    world.twin.calm()
    forge = world.app("test_flavours-forge", Declaration(forge=True))
    connect = App(world, forge.stack, "test-flavours-connect")
    connect.install()
    apps = {"connect": connect, "forge": forge}
    world.twin.fault(target="events", kind="duplicate", copies=SCENARIO["duplicated_events"])
    made = {}

    def attempt(flavour: str, number: str, plan: dict) -> None:
        app, identifier = apps[flavour], plan["transfer_id"]
        app.settled(identifier)
        app.closed(identifier)
        folder = tmp_path_factory.mktemp(f"{flavour}-{number}")
        found = receipt.write(folder, app.stack.receipt(app.tenant, identifier), app.stack.exceptions(app.tenant, identifier))
        made[flavour, number] = Attempt(app, flavour, number, identifier, folder, found)

    for flavour, app in apps.items():
        attempt(flavour, "first", app.migrate(*files(), **SCENARIO["plan"]))
    know_the_missing_authors(made["connect", "first"])
    for flavour, app in apps.items():
        plan = app.twin.rerun(made[flavour, "first"].identifier, files=files(*SCENARIO["changed_in_the_second_attempt"]))
        attempt(flavour, "second", plan)
    yield {number: (made["connect", number], made["forge", number]) for number in ATTEMPTS}
    world.twin.calm()


def files(*changed: dict) -> list[dict]:
    """The scenario's files as the twin takes them, some of them changed."""
    by_label = {file["label"]: file for file in (*SCENARIO["files"], *changed)}
    return [written(file) if "lines" in file else file for file in by_label.values()]


def written(file: dict) -> dict:
    """A file whose lines stand in the scenario."""
    content = "".join(line + "\n" for line in file["lines"])
    return {"label": file["label"], "content_base64": base64.b64encode(content.encode()).decode()}


def know_the_missing_authors(attempt: Attempt) -> None:
    """From now on the platform has a mapping for every author that an attempt asked for in vain."""
    twin = attempt.app.twin
    missing = twin.get(f"/control/transfers/{attempt.identifier}/mappings")["not_found"]
    # Each is written as "namespace key".
    keys = sorted(entry.split(" ", 1)[1] for entry in missing if entry.startswith("identity:user "))
    twin.call("PUT", "/control/mappings", {"namespace": "identity:user", "values": {key: f"found-{n}" for n, key in enumerate(keys)}})


def without(row: dict, names: set[str]) -> dict:
    """A row's columns but these."""
    return {name: value for name, value in row.items() if name not in names}


def test_the_target_has_the_same_records_byte_for_byte(attempts):
    targets = []
    for attempt in attempts["second"]:
        rows = attempt.app.tenant_records().values()
        # The sort key is the record's identity; tenant and chain are in the partition's.
        targets.append({row["sk"]: without(row, {"pk", "tenant", "chain"}) for row in rows})
        assert len(targets[-1]) == len(rows) > 783
    connect, forge = targets
    assert connect == forge


@pytest.mark.parametrize("number", ATTEMPTS)
def test_the_ledger_has_the_same_records(attempts, number):
    connect, forge = (landed(attempt) for attempt in attempts[number])
    assert connect and connect == forge


def landed(attempt: Attempt) -> dict[tuple[str, bool], bytes]:
    """The fingerprints of the records that are in the target, by label and by whether it was the file's second pass.

    How many stand in one segment depends on when a worker's time was up, so they are put together again.
    """
    found = {}
    for row in sorted(attempt.app.tracking.everything(), key=lambda row: (row["pk"], row["sk"])):
        place = row["sk"].split("#")
        if row["pk"].startswith(f"LEDGER#{attempt.app.tenant}#") and place[:2] == ["SEGMENT", attempt.identifier]:
            of_file = (attempt.labels()[place[2]], place[3] == "second")
            found[of_file] = found.get(of_file, b"") + row["landed"].value
    return found


@pytest.mark.parametrize("number", ATTEMPTS)
def test_the_files_rows_are_the_same(attempts, number):
    connect, forge = (file_rows(attempt) for attempt in attempts[number])
    assert connect == forge


def file_rows(attempt: Attempt) -> dict[str, dict]:
    """The transfer's files by label: outcome, counts, length and digest."""
    rows = attempt.rows("FILE#")
    left_out = OF_THE_FILE | OF_THE_WORK | (ONLY_FORGE if attempt.flavour == "forge" else set())
    assert all(left_out <= row.keys() for row in rows), "something is left out that isn't there"
    # When a file was read again tells the time as well; that it was doesn't.
    return {row["label"]: without(row, left_out) | {"again_at": "again_at" in row} for row in rows}


@pytest.mark.parametrize("number", ATTEMPTS)
def test_the_same_records_are_held_and_rejected_for_the_same_reasons(attempts, number):
    connect, forge = (exception_rows(attempt) for attempt in attempts[number])
    assert connect == forge


def exception_rows(attempt: Attempt) -> dict[tuple, str]:
    """The records that did not arrive as they are stored, of both passes of a file."""
    return {
        (row["label"], "#second#" in row["sk"], row["first_record"], row["count"]): gzip.decompress(row["packed"].value).decode()
        for row in attempt.rows("EXCEPTION#")
    }


@pytest.mark.parametrize("number", ATTEMPTS)
def test_the_receipts_say_the_same(attempts, number):
    connect, forge = (what_it_says(attempt) for attempt in attempts[number])
    assert connect == forge
    assert connect["records"] == COUNTS[number]
    assert connect["differences"] == []


def what_it_says(attempt: Attempt) -> dict:
    """A receipt without what says whose it is; its last word is compared with what each flavour's platform knows."""
    found = attempt.receipt
    by_flavour = SETTLED[attempt.flavour, attempt.number]
    assert {name: found[name] for name in by_flavour} == by_flavour
    assert OF_THE_ATTEMPT <= found.keys()
    left = without(found, OF_THE_ATTEMPT | by_flavour.keys())
    # The platform makes the files' keys, and with them their order; and the digest is of lines with those keys.
    left["files"] = sorted((without(file, {"file"}) for file in found["files"]), key=lambda file: file["label"])
    left["exceptions"] = without(found["exceptions"], {"sha256"})
    return left


@pytest.mark.parametrize("number", ATTEMPTS)
def test_both_receipts_are_signed_by_the_same_key(attempts, number):
    connect, forge = (json.loads((attempt.folder / "receipt.json").read_text()) for attempt in attempts[number])
    assert connect["protected"] == forge["protected"]
    assert connect["signature"] != forge["signature"]


@pytest.mark.parametrize("number", ATTEMPTS)
@pytest.mark.parametrize("name", ["exceptions.jsonl", "exceptions.csv"])
def test_the_exceptions_are_the_same_line_by_line(attempts, number, name):
    connect, forge = (lines(attempt, name) for attempt in attempts[number])
    assert connect == forge
    assert len(connect) == COUNTS[number]["held"] + COUNTS[number]["rejected"] + (1 if name.endswith(".csv") else 0)


def lines(attempt: Attempt, name: str) -> list[str]:
    """The lines of a file of exceptions without the files' keys, which the platform makes, and in the order of labels instead of theirs."""
    with (attempt.folder / name).open(newline="") as file:
        found = file.readlines()
    labels = attempt.labels()
    # Python's sort keeps the order within a file. The line with the columns' names is of no file.
    named = [(next((key for key in labels if key in line), ""), line) for line in found]
    return [line.replace(key, "key of the file") if key else line for key, line in sorted(named, key=lambda pair: labels.get(pair[0], ""))]
