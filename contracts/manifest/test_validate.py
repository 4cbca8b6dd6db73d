"""Tests of validate.py, of schema.json where the package jsonschema is installed, and of README.md's examples.

Run with: python3 -m pytest test_validate.py
"""

import gzip
import hashlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

import validate

HERE = Path(__file__).resolve().parent
GOOD = sorted((HERE / "examples" / "good").iterdir())
BAD = sorted((HERE / "examples" / "bad").iterdir())

# What the validator finds and a schema can't express, or what is no JSON to begin with.
BEYOND_THE_SCHEMA = {
    "byte-order-mark",
    "compressed",
    "cut-short",
    "empty-file",
    "field-written-twice",
    "followed-by-something",
    "label-empty",
    "label-named-twice",
    "label-with-half-a-surrogate-pair",
    "latin-1",
    "names-itself",
    "not-a-number",
    "records-minus-zero",
    "records-with-point",
    "trailing-comma",
    "version-twice",
    "version-with-fraction",
}

WITH_NOTES = {"descriptions-of-another-form": 3, "labels-of-every-kind": 1}


def checked(content, label="export-manifest"):
    """The findings of a manifest by itself."""
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    findings = validate.Findings()
    validate.check_manifest(content, label, findings)
    return findings.found


def codes(found):
    return [finding.code for finding in found]


def of(**fields):
    return {"version": 1, "files": [{"label": "a.ndjson", **fields}]}


class Export:
    """A folder of exported files with their manifest."""

    def __init__(self, folder):
        self.folder = folder / "exported"
        self.folder.mkdir()
        self.manifest = folder / "export-manifest.json"
        self.files = []

    def add(self, label, content, **declared):
        path = self.folder / label
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        right = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.files.append({"label": label, **right, **declared})

    def run(self, capsys, *options):
        self.manifest.write_text(json.dumps({"version": 1, "files": self.files}))
        code = validate.main([str(self.manifest), "--files", str(self.folder), "--json", *options])
        return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path)


# The manifest by itself


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_example_has_no_problem(path):
    found = checked(path.read_bytes())
    assert [finding for finding in found if finding.severity != "note"] == []
    assert len(found) == WITH_NOTES.get(path.stem, 0)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_example_has_a_problem_that_says_what_to_do(path, capsys):
    assert validate.main([str(path)]) == 1
    out = capsys.readouterr().out
    for line in out.splitlines()[:-1]:
        assert re.fullmatch(r"(problem|note) .*; .*\.", line), line


@pytest.mark.parametrize("path", GOOD + BAD, ids=lambda path: path.stem)
def test_the_schema_agrees(path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((HERE / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    try:
        valid = validator.is_valid(json.loads(path.read_bytes()))
    except ValueError:
        assert path.stem in BEYOND_THE_SCHEMA
        return
    assert valid == (path in GOOD or path.stem in BEYOND_THE_SCHEMA)


def test_the_schema_allows_as_many_files_as_the_validator():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads((HERE / "schema.json").read_text()))
    manifest = {"version": 1, "files": [{"label": str(number)} for number in range(10_000)]}
    assert validator.is_valid(manifest)
    assert checked(manifest) == []
    manifest["files"].append({"label": "10000"})
    assert not validator.is_valid(manifest)
    assert codes(checked(manifest)) == ["too-many-files"]


def test_all_problems_are_found_and_not_only_the_first():
    found = checked((HERE / "examples" / "bad" / "many-things-wrong.json").read_bytes())
    assert sorted(codes(found)) == sorted(["version", "records", "bytes", "sha256", "label", "label-twice", "entry"])
    assert {finding.where for finding in found} == {
        "version",
        "files[0].records",
        "files[0].bytes",
        "files[0].sha256",
        "files[1].label",
        "files[2].label",
        "files[3]",
    }


def test_a_manifest_that_is_too_large_is_refused_at_the_byte():
    manifest = json.dumps({"version": 1, "files": []}).encode()
    assert checked(manifest.ljust(validate.MANIFEST_BYTES)) == []
    assert codes(checked(manifest.ljust(validate.MANIFEST_BYTES + 1))) == ["too-large"]


def test_labels_that_take_too_much_when_stored_are_a_problem():
    def manifest(number):
        return {
            "version": 1,
            "files": [
                {
                    # Digits that don't repeat, so that packing spares little.
                    "label": hashlib.sha256(str(index).encode()).hexdigest(),
                    "records": 2500,
                }
                for index in range(number)
            ],
        }

    assert codes(checked(manifest(5000))) == []
    assert codes(checked(manifest(10_000))) == ["too-large-packed"]


def test_digests_that_take_too_much_when_stored_are_noted():
    def manifest(number, **measure):
        digests = [hashlib.sha256(str(index).encode()).hexdigest() for index in range(number)]
        files = [{"label": f"a-{digest[:36]}", "records": 2500, **measure, "sha256": digest[::-1]} for digest in digests]
        return {"version": 1, "files": files}

    assert codes(checked(manifest(5000, bytes=184_320))) == []
    assert codes(checked(manifest(10_000, bytes=184_320))) == ["digests-too-large-packed"]
    without = manifest(10_000, bytes=184_320)
    for file in without["files"]:
        del file["sha256"]
    assert codes(checked(without)) == []


def test_ten_thousand_counted_labels_are_stored_with_lengths_and_digests():
    files = [
        {
            "label": f"issues-{index:05}-of-10000.ndjson.gz",
            "records": 1000 + index * 7919 % 2003,
            "bytes": index * 7919 % 1_000_003,
            "sha256": hashlib.sha256(str(index).encode()).hexdigest(),
        }
        for index in range(1, 10_001)
    ]
    assert checked({"version": 1, "files": files}) == []


@pytest.mark.parametrize("label", ["a", "ß", "ﬁ", "a/b", " a ", "\u0000"])
def test_any_text_is_a_label(label):
    assert checked({"version": 1, "files": [{"label": label}]}) == []


def test_labels_are_compared_to_the_letter():
    labels = ["a", "A", "a ", "\u00e9", "e\u0301"]
    assert checked({"version": 1, "files": [{"label": label} for label in labels]}) == []


def test_the_manifests_own_label_can_be_another_one():
    manifest = {"version": 1, "files": [{"label": "done"}]}
    assert checked(manifest) == []
    assert codes(checked(manifest, label="done")) == ["names-itself"]


def test_a_long_label_is_noted_by_its_bytes():
    assert checked({"version": 1, "files": [{"label": "ü" * 512}]}) == []
    assert codes(checked({"version": 1, "files": [{"label": "ü" * 513}]})) == ["label-long"]


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("record", "records"), ("SHA256", "sha256"), ("sha-256", "sha256"), ("byte", "bytes"), ("Bytes", "bytes")],
)
def test_a_slip_in_a_fields_name_is_noted(slip, meant):
    (finding,) = checked(of(**{slip: "whatever"}))
    assert (finding.severity, finding.code) == ("note", "unknown-field")
    assert f"if {meant} is meant" in finding.message


def test_a_further_field_of_another_name_is_nobodys_business():
    assert checked({**of(space="ENG", md5="x"), "started_by": {"version": 1, "a": [1]}}) == []


def test_a_field_twice_counts_only_where_it_is_known():
    assert checked(b'{"version":1,"files":[],"own":1,"own":2}') == []
    assert codes(checked(b'{"version":1,"files":[],"files":[]}')) == ["field-twice"]


@pytest.mark.parametrize(
    ("text", "is_time"),
    [
        ("2026-11-22T14:05:00Z", True),
        ("2026-11-22t14:05:00.123456789z", True),
        ("2026-11-22T14:05:00+05:30", True),
        ("2016-12-31T23:59:60Z", True),
        ("2026-11-22T14:05:00", False),
        ("2026-11-22", False),
        ("2026-13-22T14:05:00Z", False),
        ("2026-02-30T14:05:00Z", False),
        ("2026-11-22T25:05:00Z", False),
        ("2026-11-22T14:05:00+99:00", False),
        ("2026-11-22T14:05:00Z\n", False),
        ("٢٠٢٦-11-22T14:05:00Z", False),
        (1763820300, False),
    ],
)
def test_a_time_is_as_rfc_3339_has_it(text, is_time):
    found = codes(checked({"version": 1, "files": [], "exported_at": text}))
    assert found == ([] if is_time else ["exported-at"])


def test_counted_labels_that_the_manifest_leaves_out_are_noted():
    def files(*labels):
        return {"version": 1, "files": [{"label": label} for label in labels]}

    assert codes(checked(files("pages-1-of-3.ndjson.gz", "pages-3-of-3.ndjson.gz"))) == ["counted-labels"]
    assert checked(files("pages-1-of-2", "pages-2-of-2")) == []
    assert checked(files("out-of-reach", "state-of-the-art-7", "a-9-of-3")) == []


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"version":' + b"9" * 5000 + b',"files":[]}'])
def test_hostile_json_is_a_finding_and_not_a_crash(content):
    assert len(checked(content)) == 1


def test_random_damage_never_crashes_the_validator():
    original = (HERE / "examples" / "good" / "full.json").read_bytes()
    chance = random.Random(7)
    for _ in range(3000):
        damaged = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(damaged))
            match chance.randrange(3):
                case 0:
                    damaged[at] = chance.randrange(256)
                case 1:
                    del damaged[at : at + chance.randrange(30)]
                case _:
                    damaged[at:at] = chance.choice([b'"', b"{", b"[", b"null", b"\\u0000", b"1e9", b"-0", b","])
        for finding in checked(bytes(damaged)):
            assert ";" in finding.message and finding.message.endswith(".")


# Against the exported files

RECORDS = b'{"id":1}\n{"id":2}\n{"id":3}\n'
ARRAY = b'[{"id":1},\n {"id":2,"s":"]},\\""}, 3]\n'


@pytest.mark.parametrize(
    ("label", "content", "records"),
    [
        ("a.ndjson", RECORDS, 3),
        ("a.ndjson", RECORDS.rstrip(), 3),
        ("a.ndjson", b"\xef\xbb\xbf\r\n" + RECORDS.replace(b"\n", b"\r\n\r\n") + b" \t\x0c\n", 3),
        ("a.ndjson", b"\x0b\n", 1),
        ("a.ndjson", b"not json\n", 1),
        ("a.ndjson", b"[1,2]\n[3]\n", 2),
        ("a.JSONL", b"[1,2]\n[3]\n", 2),
        ("a.ndjson", b"", 0),
        ("a.ndjson.gz", gzip.compress(RECORDS), 3),
        ("a.ndjson.gz", gzip.compress(RECORDS) + gzip.compress(RECORDS), 6),
        ("a.ndjson.gz", RECORDS, 3),
        ("a.ndjson", gzip.compress(RECORDS), 3),
        ("a.ndjson.gz", gzip.compress(b""), 0),
        ("a.json", ARRAY, 3),
        ("a.json", b"\xef\xbb\xbf \n" + ARRAY, 3),
        ("a.json", b"[]", 0),
        ("a.json", b"[ [] , {} , \"\" , 1e5 , nonsense , }]", 6),
        ("a.json", b"", 0),
        ("a.json", RECORDS, 3),
        ("a.json.gz", gzip.compress(ARRAY), 3),
        ("without-suffix", ARRAY, 3),
        ("a.json", b" " * 65_537 + b"[1]", 1),
        ("folder/a b.json", ARRAY, 3),
        ("a.ndjson", b"\xef\xbb", 1),
        ("a", b"\x1f", 1),
    ],
)
def test_records_are_counted_as_the_import_counts_them(export, capsys, label, content, records):
    export.add(label, content, records=records)
    code, report = export.run(capsys)
    assert report["findings"] == []
    assert (code, report["result"], report["files_compared"]) == (0, "valid", 1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[1,2", "cut short"),
        (b"[", "cut short"),
        (b'["a', "cut short"),
        (b"[1 2]", "neither"),
        (b"[1,]", "comma"),
        (b"[,1]", "comma"),
        (b"[1] x", "something follows"),
        (b"[1]\n[2]", "something follows"),
        (gzip.compress(ARRAY)[:-3], "cut short"),
        (gzip.compress(ARRAY)[:12] + b"\x00" * 20, "damaged"),
        (gzip.compress(ARRAY) + b"\x00\x00", "damaged"),
        (gzip.compress(ARRAY) + b"\x1f", "cut short"),
        (gzip.compress(b"[1,2"), "cut short"),
    ],
)
def test_a_file_that_can_not_be_read_to_its_end_is_a_problem(export, capsys, content, why):
    export.add("a.json", content, records=3)
    code, report = export.run(capsys)
    (finding,) = report["findings"]
    assert (code, finding["code"]) == (1, "broken")
    assert why in finding["message"]


def test_what_differs_is_found_each_by_itself(export, capsys):
    export.add("a.ndjson", RECORDS, records=4)
    export.add("b.ndjson", RECORDS, bytes=1)
    export.add("c.ndjson", RECORDS, sha256="0" * 64)
    export.add("d.ndjson", RECORDS, records=0, bytes=0, sha256="f" * 64)
    export.add("e.ndjson", RECORDS, records=3)
    export.add("f.ndjson", RECORDS, records=None, bytes=None, sha256=None)
    code, report = export.run(capsys)
    assert code == 1
    assert [(finding["label"][0], finding["code"]) for finding in report["findings"]] == [
        ("a", "records-differ"),
        ("b", "bytes-differ"),
        ("c", "sha256-differs"),
        ("d", "bytes-differ"),
        ("d", "sha256-differs"),
        ("d", "records-differ"),
    ]


def test_zero_is_a_claim_and_not_an_absent_field(export, capsys):
    export.add("a.ndjson", RECORDS, records=0)
    export.add("b.ndjson", b"", records=0)
    _code, report = export.run(capsys)
    assert [(finding["label"], finding["code"]) for finding in report["findings"]] == [("a.ndjson", "records-differ")]


def test_missing_and_superfluous_files_are_found(export, capsys):
    export.add("a.ndjson", RECORDS)
    (export.folder / "b.ndjson").write_bytes(RECORDS)
    (export.folder / "C.ndjson").write_bytes(RECORDS)
    export.files.append({"label": "c.ndjson"})
    export.files.append({"label": "../export-manifest.json"})
    code, report = export.run(capsys)
    assert code == 1
    assert [(finding["code"], finding["label"]) for finding in report["findings"]] == [
        ("missing", "c.ndjson"),
        ("missing", "../export-manifest.json"),
        ("superfluous", "C.ndjson"),
        ("superfluous", "b.ndjson"),
    ]
    assert '"C.ndjson" is there' in report["findings"][0]["message"]


def test_the_manifest_in_the_folder_is_not_superfluous(export, capsys):
    export.add("a.ndjson", RECORDS)
    export.manifest = export.folder / "manifest.json"
    (export.folder / "export-manifest").write_text("{}")
    assert export.run(capsys)[0] == 0


def test_an_empty_export_is_valid(export, capsys):
    assert export.run(capsys)[0] == 0


def test_files_are_compared_although_the_manifest_has_other_problems(export, capsys):
    export.add("a.ndjson", RECORDS, records="three", bytes=5)
    code, report = export.run(capsys)
    assert code == 1
    assert [finding["code"] for finding in report["findings"]] == ["records", "bytes-differ"]


def test_files_are_not_compared_with_a_manifest_that_is_none(export, capsys):
    export.add("a.ndjson", RECORDS)
    export.manifest.write_text("nonsense")
    assert validate.main([str(export.manifest), "--files", str(export.folder)]) == 1
    assert "none compared" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_folder_does_not_hang_the_check(export, capsys):
    os.mkfifo(export.folder / "a.ndjson")
    export.files.append({"label": "a.ndjson"})
    code, report = export.run(capsys)
    assert (code, report["result"], report["findings"][0]["code"]) == (2, "unchecked", "not-a-file")


def test_a_file_that_can_not_be_opened_is_told_and_the_others_are_checked(export, capsys, monkeypatch):
    export.add("a.ndjson", RECORDS, records=3)
    export.add("b.ndjson", RECORDS, records=7)
    measure = validate.measure

    def refuse(path, label, advance):
        if label == "a.ndjson":
            raise PermissionError(13, "Permission denied")
        return measure(path, label, advance)

    monkeypatch.setattr(validate, "measure", refuse)
    code, report = export.run(capsys)
    assert [finding["code"] for finding in report["findings"]] == ["unreadable-here", "records-differ"]
    assert code == 1
    export.files.pop()
    (export.folder / "b.ndjson").unlink()
    code, report = export.run(capsys)
    assert (code, report["result"]) == (2, "unchecked")


def simple_count(content):
    """What Landfall's documentation says, in its simplest form, over a whole file."""
    text = content.lstrip(validate.WHITE)
    if text.startswith(b"["):
        return len(json.loads(content))
    return sum(1 for line in content.split(b"\n") if line.strip(validate.WHITE))


def test_the_count_does_not_depend_on_how_a_file_is_cut_into_pieces():
    chance = random.Random(11)
    values = [0, -1.5, "", 'a"b', "\\", "]", "[{", "é", None, True, [], {}, [[1], []], {"a": {"b": ["}", '"']}}]
    for _ in range(1500):
        chosen = [chance.choice(values) for _ in range(chance.randrange(6))]
        if chance.random() < 0.5:
            content = json.dumps(chosen, indent=chance.choice([None, 1])).encode()
        else:
            content = b"".join(
                json.dumps({"v": value}).encode() + chance.choice([b"\n", b"\r\n", b"\n\n", b" \n\t\n"]) for value in chosen
            )
        expected = simple_count(content)
        stored = chance.choice([content, gzip.compress(content), gzip.compress(content[:7]) + gzip.compress(content[7:])])
        counter = validate.Content("file")
        reader = validate.Stored(counter)
        at = 0
        while at < len(stored):
            size = chance.choice([1, 1, 2, 3, 7, 50])
            reader.feed(stored[at : at + size])
            at += size
        reader.finish()
        assert counter.records == expected, content


def test_garbage_is_counted_alike_however_it_is_cut():
    def outcome(content, sizes):
        counter = validate.Content("file.json")
        reader = validate.Stored(counter)
        at = 0
        try:
            while at < len(content):
                size = sizes()
                reader.feed(content[at : at + size])
                at += size
            reader.finish()
        except validate.Broken as error:
            return counter.records, str(error)
        return counter.records, None

    chance = random.Random(13)
    for _ in range(3000):
        content = b"[" + bytes(chance.choice(b'{}[],"\\ \n:a1') for _ in range(chance.randrange(24)))
        whole = outcome(content, lambda: len(content))
        assert outcome(content, lambda: 1) == whole, content
        assert outcome(content, lambda: chance.choice([1, 2, 5])) == whole, content


@pytest.mark.parametrize(
    ("label", "content"),
    [
        ("zeros.ndjson.gz", gzip.compress(b" " * 60_000_000)),
        ("lines.ndjson.gz", gzip.compress(b"1\n" * 10_000_000)),
        ("one-record.json.gz", gzip.compress(b'["' + b"x" * 60_000_000 + b'"]')),
        ("quotes.json.gz", gzip.compress(b"[" + b'"\\"",' * 300_000 + b"1]")),
        ("deep.json.gz", gzip.compress(b"[" * 2_000_000)),
    ],
)
def test_memory_is_bounded_whatever_the_file_holds(tmp_path, label, content):
    path = tmp_path / label
    path.write_bytes(content)
    del content
    # Traced from here on: Python's own objects are all there is that could grow.
    tracemalloc.start()
    began = time.monotonic()
    try:
        measured = validate.measure(path, label, lambda count: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert measured.bytes == path.stat().st_size
    assert peak < 24 * 1024 * 1024
    assert time.monotonic() - began < 60


# How it behaves as a command


def command(*given, **options):
    return subprocess.run(
        [sys.executable, str(HERE / "validate.py"), *map(str, given)], capture_output=True, text=True, timeout=60, **options
    )


def test_exit_codes_and_help():
    assert command(HERE / "examples" / "good" / "full.json").returncode == 0
    assert command(HERE / "examples" / "bad" / "version-2.json").returncode == 1
    absent = command(HERE / "absent.json")
    assert absent.returncode == 2 and "can't be read" in absent.stderr and "Traceback" not in absent.stderr
    assert command().returncode == 2
    no_folder = command(HERE / "examples" / "good" / "full.json", "--files", HERE / "absent")
    assert no_folder.returncode == 2 and "is not a folder" in no_folder.stderr
    assert command(HERE).returncode == 2
    help_text = command("--help")
    assert help_text.returncode == 0 and "Exit code 0" in help_text.stdout


def test_notes_count_only_when_asked_to():
    path = HERE / "examples" / "good" / "descriptions-of-another-form.json"
    assert command(path).returncode == 0
    assert command(path, "--strict").returncode == 1


def test_machines_get_one_json_object():
    answer = command(HERE / "examples" / "bad" / "label-named-twice.json", "--json")
    report = json.loads(answer.stdout)
    assert (report["result"], report["problems"], report["folder"]) == ("invalid", 1, None)
    assert report["findings"][0] == {
        "severity": "problem",
        "code": "label-twice",
        "where": "files[2].label",
        "message": report["findings"][0]["message"],
        "label": "issues.ndjson",
    }


def test_many_findings_of_a_kind_are_summed_up_in_text_and_complete_in_json(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"version": 1, "files": [{"label": str(n), "sha256": "x"} for n in range(500)]}))
    text = command(path).stdout
    assert "and 480 more of the kind sha256" in text and len(text.splitlines()) == 22
    assert len(json.loads(command(path, "--json").stdout)["findings"]) == 500


def test_a_label_can_not_steer_the_terminal(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"version": 1, "files": [{"label": "\x1b[2J\u202e\x9b31m\n" + "y" * 5000, "records": -1}] * 2}))
    out = command(path).stdout
    assert "\x1b" not in out and "\u202e" not in out and "\x9b" not in out
    assert max(map(len, out.splitlines())) < 400


def test_a_terminal_that_knows_only_ascii_is_enough(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"version": 1, "files": [{"label": "ラベル"}, {"label": "ラベル"}]}))
    answer = command(path, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert answer.returncode == 1 and "Traceback" not in answer.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_interruption_ends_it_with_one_sentence(tmp_path):
    # Nobody ever writes into the pipe, so the command waits until it is interrupted.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [sys.executable, str(HERE / "validate.py"), str(pipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A runner in the background may have told its children to ignore interruptions.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as running:
        time.sleep(1.5)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert (running.returncode, out) == (2, "")
    assert err == "Stopped before everything was checked; run it again for a result.\n"


def test_an_interruption_while_files_are_read_clears_the_progress(export, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    export.add("a.ndjson", RECORDS)
    monkeypatch.setattr(validate.Progress, "QUIET_AT_FIRST", 0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    measure = validate.measure

    def interrupted(*given):
        measure(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(validate, "measure", interrupted)
    export.manifest.write_text(json.dumps({"version": 1, "files": export.files}))
    assert validate.main([str(export.manifest), "--files", str(export.folder)]) == 2
    shown = terminal.getvalue()
    assert "100 %, 0.0 of 0.0 MB, file 1 of 1" in shown
    assert shown.endswith("\r\x1b[KStopped before everything was checked; run it again for a result.\n")


def test_nothing_of_the_progress_is_seen_without_a_terminal(export):
    export.add("a.ndjson", RECORDS * 1000)
    export.manifest.write_text(json.dumps({"version": 1, "files": export.files}))
    answer = command(export.manifest, "--files", export.folder)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.endswith("valid; 0 problems; 1 file named, 1 compared.\n")


def test_output_that_nobody_reads_to_its_end_is_no_crash(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"version": 1, "files": [{"label": str(n), "sha256": "x"} for n in range(5000)]}))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        answer = subprocess.run(
            [sys.executable, str(HERE / "validate.py"), str(path), "--json"], stdout=closed, stderr=subprocess.PIPE, timeout=60
        )
    assert (answer.returncode, answer.stderr) == (2, b"")


# The documentation


def test_the_readmes_examples_are_the_files():
    text = (HERE / "README.md").read_text(encoding="utf-8")
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    files = [json.loads((HERE / "examples" / "good" / f"{name}.json").read_text()) for name in ("smallest", "full", "empty")]
    assert blocks == files


def test_the_readmes_limits_are_the_validators():
    text = (HERE / "README.md").read_text(encoding="utf-8")
    for limit in ("4 MiB", "10,000", "300,000 bytes", "1024 bytes", "200 characters"):
        assert limit in text, limit


@pytest.mark.parametrize(
    ("text", "records"),
    [
        (b"", 0),
        (b"id", 0),
        (b"id\n1\n\n2\r\n \n", 2),
        (b'id,text\n1,"a\nb"\n2,"""\n"\n', 2),
        (b'id\n5" pipe\n6\n', 2),
        (b'\xef\xbb\xbfid,a\n1,\n,\n', 2),
    ],
)
@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_rows_are_counted_behind_their_header(text, records, cut):
    content = validate.Content("people.csv")
    for start in range(0, len(text), cut):
        content.feed(text[start : start + cut])
    content.finish()
    assert content.records == records


def test_a_file_of_rows_that_ends_between_quotes_is_broken():
    content = validate.Content("people.CSV.gz")
    content.feed(b'id\n"1\n')
    with pytest.raises(validate.Broken):
        content.finish()


@pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"\x5a\x2a\x4d\x18"])
def test_the_records_of_a_zstd_file_are_not_counted(tmp_path, magic):
    (tmp_path / "a").write_bytes(magic + b"\n" * 100)
    measured = validate.measure(tmp_path / "a", "a.ndjson.zst", lambda _: None)
    assert (measured.records, measured.bytes, measured.broken) == (None, 104, None)


def test_a_gzip_file_of_three_bytes_is_cut_short(tmp_path):
    (tmp_path / "a").write_bytes(b"\x1f\x8b\x08")
    assert validate.measure(tmp_path / "a", "a.ndjson.gz", lambda _: None).broken
