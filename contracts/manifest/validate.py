#!/usr/bin/env python3
"""Checks an export manifest, and the exported files against it, before a customer's migration does.

Python 3.11 or newer, standard library only. README.md beside this file is the specification.
"""

import argparse
import difflib
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

# Limits of the reader; README.md lists them.
VERSION = 1
MANIFEST_BYTES = 4 * 1024 * 1024
FILES_MAX = 10_000
PACKED_BYTES = 300_000
# Of a SHA-256: those that are compared.
DIGITS_KEPT = 16
LABEL_BYTES = 1024
UNSIGNED_64_BIT_MAX = 2**64 - 1
DESCRIPTION_CHARACTERS = 200

DEFAULT_LABEL = "export-manifest"

# A message above this many of one kind is left out of the text output; --json has them all.
SHOWN_OF_A_KIND = 20

READ_BYTES = 256 * 1024
# As many bytes are decompressed at a time: a small piece of a gzip file may hold a thousand times its size.
DECOMPRESSED_BYTES = 256 * 1024
# A file that begins with more white space than this is read as lines, whatever follows.
LEADING_WHITE_BYTES = 65_536

# A frame, or one of those that are to be skipped.
ZSTD_MAGIC = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)
GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What Landfall takes for white space; Python's own strip() takes more.
WHITE = b" \t\n\x0c\r"

ROOT_FIELDS = ("version", "exporter", "exported_at", "schema_version", "files")
FILE_FIELDS = ("label", "records", "bytes", "sha256")

PROBLEM = "problem"
NOTE = "note"
UNCHECKED = "unchecked"

DIGEST = re.compile(r"[0-9a-f]{64}")
TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing, as one sentence that says what to do next."""

    severity: str
    code: str
    where: str
    message: str
    label: str | None = None


@dataclass
class Findings:
    """Everything that was found so far, in the order in which it was."""

    found: list[Finding] = field(default_factory=list)

    def problem(self, code: str, where: str, message: str, label: str | None = None) -> None:
        """The manifest is refused, or the migration could not succeed with it."""
        self.found.append(Finding(PROBLEM, code, where, message, label))

    def note(self, code: str, where: str, message: str, label: str | None = None) -> None:
        """Nothing is refused, but probably something else was meant."""
        self.found.append(Finding(NOTE, code, where, message, label))

    def unchecked(self, code: str, where: str, message: str, label: str | None = None) -> None:
        """This machine kept us from looking."""
        self.found.append(Finding(UNCHECKED, code, where, message, label))

    def number_of(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.found)


@dataclass(frozen=True)
class Declared:
    """What the manifest says of one file; a field that is absent or can't be used is None."""

    where: str
    label: str
    records: int | None
    bytes: int | None
    sha256: str | None


class CannotCheck(Exception):
    """Nothing can be checked at all; the text says why and what to do."""


# The manifest by itself


class Fields(dict):
    """A JSON object that remembers which names it had twice, which a dictionary alone would hide."""

    def __init__(self, pairs: list[tuple[str, object]]):
        super().__init__(pairs)
        self.repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]


def whole_number(text: str) -> int | float:
    # "-0" is no unsigned number for the reader, and a number of thousands of digits is beyond every limit.
    return float(text) if text == "-0" or len(text) > 20 else int(text)


def refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON value")


# JSON's null is a document too, so None can't say that there is none.
NOT_JSON = object()


def parse(content: bytes, findings: Findings) -> object:
    """The manifest's JSON; NOT_JSON, with a finding, when it can't be read."""
    if len(content) > MANIFEST_BYTES:
        findings.problem(
            "too-large",
            "",
            f"The manifest is larger than {MANIFEST_BYTES} bytes; shorten its labels or leave further fields out, "
            "or export fewer, larger files.",
        )
        return NOT_JSON
    if content.startswith(GZIP_MAGIC):
        findings.problem("compressed", "", "The manifest is compressed; upload it as plain JSON.")
        return NOT_JSON
    if content.startswith(BYTE_ORDER_MARK):
        findings.problem(
            "byte-order-mark",
            "",
            "The manifest begins with a byte order mark, which the reader refuses; write it as UTF-8 without one.",
        )
        content = content.removeprefix(BYTE_ORDER_MARK)
    try:
        return json.loads(
            content.decode("utf-8"),
            object_pairs_hook=Fields,
            parse_int=whole_number,
            parse_constant=refuse_constant,
        )
    except UnicodeDecodeError as error:
        findings.problem(
            "not-utf-8", "", f"The manifest is not UTF-8 (byte {error.start}); write it in this encoding."
        )
    except json.JSONDecodeError as error:
        findings.problem(
            "not-json",
            "",
            f"The manifest is not JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "write it with a JSON library, and to its end.",
        )
    except ValueError as error:
        findings.problem("not-json", "", f"The manifest is not JSON ({error}); write it with a JSON library.")
    except RecursionError:
        findings.problem("nested-too-deep", "", "The manifest's fields are nested too deeply; flatten its further fields.")
    return NOT_JSON


def check_manifest(content: bytes, manifest_label: str, findings: Findings) -> list[Declared]:
    """Checks the manifest by itself and gives back what it declares, as far as it can be understood."""
    document = parse(content, findings)
    if document is NOT_JSON:
        return []
    if not isinstance(document, Fields):
        findings.problem(
            "not-an-object", "", f"The manifest is {kind_of(document)}, not a JSON object; write version and files."
        )
        return []
    check_repeated(document, ROOT_FIELDS, "", findings)
    check_version(document, findings)
    check_descriptions(document, findings)
    check_unknown(document, ROOT_FIELDS, "", findings)
    declared = check_entries(document, manifest_label, findings)
    check_counted_labels(declared, findings)
    packed = packed_size(declared, with_digests=False)
    if packed > PACKED_BYTES:
        findings.problem(
            "too-large-packed",
            "files",
            f"The manifest takes some {packed} bytes when it is stored, above the limit of {PACKED_BYTES}; "
            "export fewer, larger files, or under shorter labels.",
        )
    elif packed_size(declared, with_digests=True) > PACKED_BYTES:
        findings.note(
            "digests-too-large-packed",
            "files",
            f"The manifest would take more than {PACKED_BYTES} bytes when it is stored, so Landfall leaves its digests out and does "
            "not compare them; export fewer, larger files, or under shorter labels.",
        )
    return declared


def check_repeated(fields: Fields, known: tuple[str, ...], where: str, findings: Findings) -> None:
    for name in fields.repeated:
        if name in known:
            findings.problem(
                "field-twice", place(where, name), f"The field {name} stands twice in one object; write it once."
            )


def check_version(document: Fields, findings: Findings) -> None:
    if "version" not in document:
        findings.problem("version", "version", f'The field version is missing; write "version": {VERSION}.')
        return
    version = document["version"]
    if type(version) is not int or version != VERSION:
        findings.problem(
            "version",
            "version",
            f"The version is {shown(version)}, and only the number {VERSION} is known; "
            f'write "version": {VERSION}, and the version of your own records as schema_version.',
        )


def check_descriptions(document: Fields, findings: Findings) -> None:
    """Fields that only describe. The reader never refuses a manifest for them, so they are worth a note at most."""
    exporter = document.get("exporter")
    if exporter is not None:
        if not isinstance(exporter, Fields):
            findings.note(
                "exporter",
                "exporter",
                f"The exporter is {kind_of(exporter)} and therefore passed over; "
                'write it as {"name": …, "version": …}.',
            )
        else:
            check_repeated(exporter, ("name", "version"), "exporter", findings)
            for name in ("name", "version"):
                check_description(exporter.get(name), f"exporter.{name}", findings)
            check_unknown(exporter, ("name", "version"), "exporter", findings)
    check_description(document.get("schema_version"), "schema_version", findings)
    exported_at = document.get("exported_at")
    if exported_at is not None and not is_time(exported_at):
        findings.note(
            "exported-at",
            "exported_at",
            f"The field exported_at is {shown(exported_at)}, which is no time as RFC 3339 has it, and therefore passed "
            "over; write it as 2026-11-22T14:05:00Z.",
        )


def check_description(value: object, where: str, findings: Findings) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        findings.note(
            "description",
            where,
            f"The field {where} is {kind_of(value)} and therefore passed over; write it as text.",
        )
    elif len(value) > DESCRIPTION_CHARACTERS:
        findings.note(
            "description",
            where,
            f"The field {where} has {len(value)} characters and is cut to {DESCRIPTION_CHARACTERS}; shorten it.",
        )


def is_time(value: object) -> bool:
    match = TIME.fullmatch(value) if isinstance(value, str) else None
    if not match:
        return False
    day, clock, _fraction, offset = match.groups()
    # A leap second is allowed by RFC 3339, but not by Python.
    clock = re.sub(r":60$", ":59", clock)
    try:
        datetime.fromisoformat(f"{day}T{clock}{offset.upper().replace('Z', '+00:00')}")
    except ValueError:
        return False
    return True


def check_unknown(fields: Fields, known: tuple[str, ...], where: str, findings: Findings) -> None:
    """A further field is the exporter's own. One that is nearly a known name is more likely a slip, and a check that is not made."""
    absent = [name for name in known if name not in fields]
    for name in fields:
        if name in known:
            continue
        meant = difflib.get_close_matches(name.lower(), absent, n=1, cutoff=0.75)
        if meant:
            findings.note(
                "unknown-field",
                place(where, name),
                f"The field {quoted(name)} is not known and therefore passed over; if {meant[0]} is meant, rename it.",
            )


def check_entries(document: Fields, manifest_label: str, findings: Findings) -> list[Declared]:
    if "files" not in document:
        findings.problem(
            "files",
            "files",
            'The field files is missing; name every uploaded file in it, or write "files": [] if there was nothing to export.',
        )
        return []
    entries = document["files"]
    if not isinstance(entries, list):
        findings.problem(
            "files", "files", f"The field files is {kind_of(entries)}; write an array with one object a file."
        )
        return []
    if len(entries) > FILES_MAX:
        findings.problem(
            "too-many-files",
            "files",
            f"The manifest names {len(entries)} files, above the limit of {FILES_MAX}; export fewer, larger files.",
        )
    declared = []
    first: dict[str, str] = {}
    for index, entry in enumerate(entries):
        where = f"files[{index}]"
        file = check_entry(entry, where, manifest_label, findings)
        if file is None:
            continue
        if file.label in first:
            findings.problem(
                "label-twice",
                f"{where}.label",
                f"The label {quoted(file.label)} is named by {first[file.label]} already; "
                "give every uploaded file a label of its own and name it once.",
                file.label,
            )
            continue
        first[file.label] = where
        declared.append(file)
    return declared


def check_entry(entry: object, where: str, manifest_label: str, findings: Findings) -> Declared | None:
    """What one entry declares; None when not even its label can be used."""
    if not isinstance(entry, Fields):
        findings.problem("entry", where, f"The entry is {kind_of(entry)}; write an object with at least a label.")
        return None
    check_repeated(entry, FILE_FIELDS, where, findings)
    check_unknown(entry, FILE_FIELDS, where, findings)
    label = check_label(entry, where, manifest_label, findings)
    known = label or None
    numbers = {}
    for name, meaning in (("records", "the number of the file's records"), ("bytes", "the file's length in bytes")):
        value = entry.get(name)
        if value is None or (type(value) is int and 0 <= value <= UNSIGNED_64_BIT_MAX):
            numbers[name] = value
            continue
        numbers[name] = None
        findings.problem(
            name,
            f"{where}.{name}",
            f"The field {name} is {shown(value)}; write {meaning} as a whole number from 0 to {UNSIGNED_64_BIT_MAX}, "
            "without quotes, point or exponent, or leave it out.",
            known,
        )
    sha256 = entry.get("sha256")
    if sha256 is not None and not (isinstance(sha256, str) and DIGEST.fullmatch(sha256)):
        findings.problem(
            "sha256",
            f"{where}.sha256",
            f"The field sha256 is {shown(sha256)}; write the SHA-256 of the uploaded bytes as 64 lower-case "
            "hexadecimal digits, or leave it out.",
            known,
        )
        sha256 = None
    if not label:
        return None
    return Declared(where, label, numbers["records"], numbers["bytes"], sha256)


def check_label(entry: Fields, where: str, manifest_label: str, findings: Findings) -> str | None:
    """The entry's label if a file can be found by it."""
    at = f"{where}.label"
    if "label" not in entry:
        findings.problem("label", at, "The field label is missing; write the label under which the file was uploaded.")
        return None
    label = entry["label"]
    if not isinstance(label, str):
        findings.problem(
            "label", at, f"The label is {kind_of(label)}; write the text under which the file was uploaded."
        )
        return None
    if not label:
        findings.problem(
            "label-empty",
            at,
            "The label is empty, and Landfall would wait for such a file in vain; upload every file under a label.",
        )
        return None
    try:
        length = len(label.encode("utf-8"))
    except UnicodeEncodeError:
        findings.problem(
            "label",
            at,
            f"The label {quoted(label)} has half of a surrogate pair in it, which UTF-8 can't express; use another label.",
        )
        return None
    if label == manifest_label:
        findings.problem(
            "names-itself",
            at,
            "The manifest names itself; leave it out of files, and name only what it was exported for.",
            label,
        )
        return None
    if length > LABEL_BYTES:
        findings.note(
            "label-long",
            at,
            f"The label has {length} bytes, and Landfall shows it shortened to {LABEL_BYTES}; use a shorter one.",
            label,
        )
    return label


def check_counted_labels(declared: list[Declared], findings: Findings) -> None:
    """Labels such as attachments-0003-of-0007 say themselves how many there are; a manifest should not disagree."""
    groups: dict[tuple[str, int], set[int]] = {}
    for file in declared:
        front, separator, back = file.label.rpartition("-of-")
        group, dash, number = front.rpartition("-")
        total = back.split(".", 1)[0]
        if separator and dash and is_count(number) and is_count(total):
            if 1 <= int(total) <= FILES_MAX and int(number) <= int(total):
                groups.setdefault((group, int(total)), set()).add(int(number))
    for (group, total), present in groups.items():
        if len(present) < total:
            findings.note(
                "counted-labels",
                "files",
                f"The manifest names {len(present)} of {total} files of {quoted(group)}; name the others too if they are "
                "uploaded, because Landfall does not wait for a file that the manifest leaves out.",
            )


def is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 19


def packed_size(declared: list[Declared], with_digests: bool) -> int:
    """What the manifest takes when it is stored: what is compared later, packed with gzip."""
    ordered = sorted(declared, key=lambda file: file.label)
    kept: dict[str, object] = {"files": {file.label: file.records for file in ordered}}
    measures = []
    for file in ordered:
        digest = file.sha256[:DIGITS_KEPT] if file.sha256 and with_digests else None
        measure = {"bytes": file.bytes, "sha256": digest}
        measures.append({name: value for name, value in measure.items() if value is not None})
    if any(measures):
        kept["measures"] = measures
    stored = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    return len(gzip.compress(stored.encode("utf-8"), compresslevel=6))


# One exported file


@dataclass(frozen=True)
class Measured:
    """What a file is in truth."""

    bytes: int
    sha256: str
    # None where they can't be counted here.
    records: int | None
    # Why Landfall could not read it to its end, if so.
    broken: str | None


class Broken(Exception):
    """The file can't be read any further; the text says why."""


class Lines:
    """Counts lines that hold more than white space."""

    def __init__(self) -> None:
        self.complete = 0
        self.holds_something = False

    def feed(self, piece: bytes) -> None:
        first, *others = piece.split(b"\n")
        self.holds_something = self.holds_something or bool(first.strip(WHITE))
        if not others:
            return
        self.complete += self.holds_something
        last = others.pop()
        self.complete += sum(1 for line in others if line.strip(WHITE))
        self.holds_something = bool(last.strip(WHITE))

    def finish(self) -> None:
        # The last line needs no end.
        self.complete += self.holds_something
        self.holds_something = False

    @property
    def records(self) -> int:
        return self.complete


class Elements:
    """Counts the elements of one JSON array without parsing them, so that neither their size nor a wrong one matters."""

    NOT_WHITE = re.compile(rb"[^ \t\n\x0c\r]")
    SCALAR_ENDS = re.compile(rb"[,\] \t\n\x0c\r]")
    STRING_STOPS = re.compile(rb'["\\]')
    # A whole string at once, where it lies within the piece; else its first quote. Possessive, so that no input is slow.
    NESTED = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)

    def __init__(self) -> None:
        self.records = 0
        self.place = "start"
        self.depth = 0
        self.in_string = False
        self.escaped = False
        self.scalar = False

    def feed(self, piece: bytes) -> None:
        at = 0
        while at < len(piece):
            if self.place == "value":
                end = self.through_value(piece, at)
                if end is None:
                    return
                at = end
                self.records += 1
                self.place = "separator"
                continue
            found = self.NOT_WHITE.search(piece, at)
            if not found:
                return
            at = found.start()
            at += self.step(piece[at : at + 1])

    def step(self, byte: bytes) -> int:
        """Takes one byte outside a value; gives back how many bytes were used up."""
        match self.place, byte:
            case "start", b"[":
                self.place = "first"
            case "start", _:
                raise Broken("it does not begin with [")
            case ("first" | "separator"), b"]":
                self.place = "after"
            case "separator", b",":
                self.place = "element"
            case "separator", _:
                raise Broken("an element of its array is followed by neither , nor ]")
            case ("first" | "element"), (b"," | b"]"):
                raise Broken("its array has a comma with no element beside it")
            case "after", _:
                raise Broken("something follows its array")
            case _:
                self.place, self.depth = "value", 0
                self.in_string = self.escaped = self.scalar = False
                return 0
        return 1

    def through_value(self, piece: bytes, at: int) -> int | None:
        """Goes on through a value; gives back where it ends, None if not within this piece."""
        while at < len(piece):
            if self.escaped:
                self.escaped = False
                at += 1
            elif self.in_string:
                found = self.STRING_STOPS.search(piece, at)
                if not found:
                    return None
                at = found.end()
                if found[0] == b"\\":
                    self.escaped = True
                    continue
                self.in_string = False
                if self.depth == 0:
                    return at
            elif self.scalar:
                found = self.SCALAR_ENDS.search(piece, at)
                return found.start() if found else None
            elif self.depth == 0 and piece[at] not in b'"{[':
                self.scalar = True
                at += 1
            else:
                end = self.through_nested(piece, at)
                if end is None:
                    return None
                at = end
                if self.depth == 0 and not self.in_string:
                    return at
        return None

    def through_nested(self, piece: bytes, at: int) -> int | None:
        for found in self.NESTED.finditer(piece, at):
            token = found[0]
            if token in (b"{", b"["):
                self.depth += 1
            elif token in (b"}", b"]"):
                self.depth -= 1
            elif len(token) == 1:
                # A string whose end is in a later piece.
                self.in_string = True
                return found.end()
            if self.depth == 0:
                return found.end()
        return None

    def finish(self) -> None:
        if self.place != "after":
            raise Broken("its array is cut short")


class Rows:
    """Counts rows of comma separated values behind their header. A quote counts only at the beginning of a field."""

    FIELD_ENDS = re.compile(rb"[,\n]")

    def __init__(self) -> None:
        self.rows = 0
        self.quoted = False
        self.at_field = True
        self.holds_something = False

    def feed(self, piece: bytes) -> None:
        at = 0
        while at < len(piece):
            if self.quoted:
                at = self.through_quotes(piece, at)
                continue
            byte = piece[at : at + 1]
            if byte == b'"' and self.at_field:
                self.quoted, self.at_field, self.holds_something = True, False, True
                at += 1
                continue
            end = self.FIELD_ENDS.search(piece, at)
            stop = end.start() if end else len(piece)
            if stop > at:
                self.at_field = False
                self.holds_something = self.holds_something or bool(piece[at:stop].strip(WHITE))
            if not end:
                return
            self.at_field = True
            if end[0] == b"\n":
                self.end_row()
            else:
                self.holds_something = True
            at = end.end()

    def through_quotes(self, piece: bytes, at: int) -> int:
        """Goes on between quotes; a second quote at once opens them again."""
        found = piece.find(b'"', at)
        if found < 0:
            return len(piece)
        self.quoted = False
        # Behind the closing quote only another quote is special, as at the beginning of a field.
        self.at_field = True
        return found + 1

    def end_row(self) -> None:
        self.rows += self.holds_something
        self.at_field, self.holds_something = True, False

    def finish(self) -> None:
        if self.quoted:
            raise Broken("it ends between quotes")
        self.end_row()

    @property
    def records(self) -> int:
        # The first row names the columns.
        return max(self.rows - 1, 0)


class Content:
    """Counts the records of a (decompressed) file: lines, one array or rows, decided as Landfall decides it."""

    def __init__(self, label: str) -> None:
        self.head = bytearray()
        self.mark_passed = False
        name = label.lower().removesuffix(".gz").removesuffix(".zst")
        self.lines_by_label = name.endswith((".ndjson", ".jsonl"))
        self.rows_by_label = name.endswith(".csv")
        self.counter: Lines | Elements | Rows | None = None

    @property
    def records(self) -> int:
        return self.counter.records if self.counter else 0

    def feed(self, piece: bytes, at_end: bool = False) -> None:
        if self.counter is None:
            self.head += piece
            if not self.decide(at_end):
                return
            piece = bytes(self.head)
            self.head.clear()
        self.counter.feed(piece)

    def decide(self, at_end: bool) -> bool:
        if not self.mark_passed:
            if not at_end and len(self.head) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(self.head):
                return False
            self.head = self.head.removeprefix(BYTE_ORDER_MARK)
            self.mark_passed = True
        text = self.head.lstrip(WHITE)
        if self.rows_by_label:
            self.counter = Rows()
        elif self.lines_by_label:
            self.counter = Lines()
        elif text:
            self.counter = Elements() if text.startswith(b"[") else Lines()
        elif at_end or len(self.head) > LEADING_WHITE_BYTES:
            self.counter = Lines()
        return self.counter is not None

    def finish(self) -> None:
        if self.counter is None:
            self.feed(b"", at_end=True)
        self.counter.finish()


class Stored:
    """The file as it is stored: plain, gzip or zstd, which its first bytes decide. Feeds what it holds to a Content."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.head: bytes | None = b""
        self.decompressor = None
        # Nothing in the standard library reads it, so its records are not counted.
        self.is_zstd = False

    def feed(self, piece: bytes) -> None:
        if self.head is not None:
            piece = self.head + piece
            if len(piece) < 4:
                self.head = piece
                return
            self.head = None
            if piece.startswith(GZIP_MAGIC):
                self.decompressor = member()
            self.is_zstd = bool(ZSTD_MAGIC.match(piece))
        if self.is_zstd:
            return
        if self.decompressor is None:
            self.content.feed(piece)
        else:
            self.decompress(piece)

    def decompress(self, piece: bytes) -> None:
        while True:
            if self.decompressor.eof:
                # Several members in a row are one file.
                if not piece:
                    return
                self.decompressor = member()
            try:
                out = self.decompressor.decompress(piece, DECOMPRESSED_BYTES)
            except zlib.error as error:
                raise Broken("its gzip data is damaged, or something else follows it") from error
            self.content.feed(out)
            if self.decompressor.eof:
                piece = self.decompressor.unused_data
            else:
                piece = self.decompressor.unconsumed_tail
                # Without input left there may still be output that did not fit.
                if not piece and len(out) < DECOMPRESSED_BYTES:
                    return

    def finish(self) -> None:
        if self.head and self.head.startswith(GZIP_MAGIC):
            raise Broken("its gzip data is cut short")
        if self.head:
            self.content.feed(self.head)
        if self.decompressor is not None and not self.decompressor.eof:
            raise Broken("its gzip data is cut short")
        self.content.finish()


def member():
    """A decompressor for one gzip member."""
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)


def measure(path: Path, label: str, advance: Callable[[int], None]) -> Measured:
    """Reads a file once, in pieces, whatever its size."""
    digest = hashlib.sha256()
    length = 0
    broken = None
    content = Content(label)
    stored = Stored(content)
    with open(path, "rb", buffering=0) as source:
        while piece := source.read(READ_BYTES):
            length += len(piece)
            digest.update(piece)
            if broken is None:
                try:
                    stored.feed(piece)
                except Broken as error:
                    # Length and digest are of the whole file all the same.
                    broken = str(error)
            advance(len(piece))
    if broken is None:
        try:
            stored.finish()
        except Broken as error:
            broken = str(error)
    return Measured(length, digest.hexdigest(), None if stored.is_zstd else content.records, broken)


# The exported files against the manifest


class Progress:
    """One line on a terminal for files that take a while; nothing anywhere else."""

    QUIET_AT_FIRST = 0.5
    INTERVAL = 0.2

    def __init__(self, files: int, total_bytes: int, terminal=None) -> None:
        self.terminal = terminal if terminal is not None and terminal.isatty() else None
        self.files = files
        self.total_bytes = total_bytes
        self.done_files = 0
        self.done_bytes = 0
        self.label = ""
        self.next_at = time.monotonic() + self.QUIET_AT_FIRST
        self.shown = False

    def begin(self, label: str) -> None:
        self.label = label

    def advance(self, count: int) -> None:
        self.done_bytes += count
        if self.terminal is None or time.monotonic() < self.next_at:
            return
        self.next_at = time.monotonic() + self.INTERVAL
        percent = 100 * self.done_bytes // max(self.total_bytes, 1)
        text = (
            f"{min(percent, 100)} %, {in_megabytes(self.done_bytes)} of {in_megabytes(self.total_bytes)} MB, "
            f"file {self.done_files + 1} of {self.files}: {quoted(self.label)}"
        )
        width = shutil.get_terminal_size().columns - 1
        self.terminal.write("\r\x1b[K" + text[:width])
        self.terminal.flush()
        self.shown = True

    def end_of_file(self) -> None:
        self.done_files += 1

    def clear(self) -> None:
        if self.shown:
            self.terminal.write("\r\x1b[K")
            self.terminal.flush()
            self.shown = False


def in_megabytes(count: int) -> str:
    return f"{count / 1_000_000:,.1f}"


def exported_files(folder: Path, manifest: Path, manifest_label: str, findings: Findings) -> dict[str, Path]:
    """The folder's files by the label that their path is, the manifest itself left out."""

    def could_not_list(error: OSError) -> None:
        findings.unchecked(
            "folder",
            str(error.filename),
            f"The folder {quoted(str(error.filename))} can't be listed ({error.strerror}); allow reading it.",
        )

    files = {}
    for parent, folders, names in os.walk(folder, onerror=could_not_list):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            label = path.relative_to(folder).as_posix()
            if label != manifest_label and not is_same(path, manifest):
                files[label] = path
    return files


def is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def check_files(
    declared: list[Declared],
    folder: Path,
    manifest: Path,
    manifest_label: str,
    findings: Findings,
    terminal=None,
) -> int:
    """Compares the exported files with what the manifest declares; gives back how many were compared."""
    present = exported_files(folder, manifest, manifest_label, findings)
    alike = {alike_name(label): label for label in present}
    wanted = []
    for file in declared:
        path = present.get(file.label)
        if path is None:
            near = alike.get(alike_name(file.label))
            hint = f" ({quoted(near)} is there, but labels count to the letter)" if near else ""
            findings.problem(
                "missing",
                file.where,
                f"The file {quoted(file.label)} is not in the folder{hint}; "
                "export it, or take it out of the manifest if it is not uploaded.",
                file.label,
            )
            continue
        try:
            status = path.stat()
        except OSError as error:
            cannot_read(file, error, findings)
            continue
        if not stat.S_ISREG(status.st_mode):
            findings.unchecked(
                "not-a-file", file.where, f"{quoted(file.label)} is not a regular file; put the exported file there.", file.label
            )
            continue
        wanted.append((file, path, status.st_size))
    progress = Progress(len(wanted), sum(size for _, _, size in wanted), terminal)
    compared = 0
    try:
        for file, path, _size in wanted:
            progress.begin(file.label)
            try:
                measured = measure(path, file.label, progress.advance)
            except OSError as error:
                cannot_read(file, error, findings)
                continue
            compare(file, measured, findings)
            compared += 1
            progress.end_of_file()
    finally:
        progress.clear()
    named = {file.label for file in declared}
    for label in present:
        if label not in named:
            findings.problem(
                "superfluous",
                "files",
                f"The file {quoted(label)} is in the folder, but the manifest does not name it; "
                "name it, or remove it if it is not uploaded.",
                label,
            )
    return compared


def cannot_read(file: Declared, error: OSError, findings: Findings) -> None:
    findings.unchecked(
        "unreadable-here",
        file.where,
        f"The file {quoted(file.label)} can't be read ({error.strerror}); allow reading it and check again.",
        file.label,
    )


def alike_name(label: str) -> str:
    return unicodedata.normalize("NFC", label).casefold()


def compare(file: Declared, measured: Measured, findings: Findings) -> None:
    name = quoted(file.label)
    if file.bytes is not None and file.bytes != measured.bytes:
        findings.problem(
            "bytes-differ",
            f"{file.where}.bytes",
            f"The file {name} has {measured.bytes} bytes, the manifest says {file.bytes}; "
            "count the bytes as uploaded (compressed, if they are), after the stream was closed.",
            file.label,
        )
    if file.sha256 is not None and file.sha256 != measured.sha256:
        findings.problem(
            "sha256-differs",
            f"{file.where}.sha256",
            f"The file {name} has the SHA-256 {measured.sha256}, the manifest says {file.sha256}; "
            "digest the bytes as uploaded (compressed, if they are), to the last one.",
            file.label,
        )
    if measured.broken is not None:
        findings.problem(
            "broken",
            file.where,
            f"The file {name} can't be read to its end, because {measured.broken}; "
            "mend the exporter, since no migration with such a file succeeds.",
            file.label,
        )
    elif file.records is not None and measured.records is None:
        findings.note(
            "records-not-counted",
            f"{file.where}.records",
            f"The file {name} is compressed with zstd, and its records were not counted; make sure that the number is right.",
        )
    elif file.records is not None and file.records != measured.records:
        findings.problem(
            "records-differ",
            f"{file.where}.records",
            f"The file {name} has {measured.records} records, the manifest says {file.records}; "
            "count one for each line that is not empty, or for each element of the array.",
            file.label,
        )


# How things are said


def place(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def quoted(text: str, longest: int = 120) -> str:
    """Text from elsewhere as it can be shown anywhere: nothing that moves a terminal's cursor, and not too long."""
    if len(text) > longest:
        text = text[: longest - 41] + "…" + text[-40:]
    safe = (character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return '"' + "".join(safe) + '"'


def kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "an array" if isinstance(value, list) else "an object"


def shown(value: object) -> str:
    """A value where it is short enough to be shown, else its kind."""
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return kind_of(value)


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def result_of(findings: Findings, strict: bool) -> tuple[str, int]:
    """The result in one word, and the exit code."""
    if findings.number_of(PROBLEM) or (strict and findings.number_of(NOTE)):
        return "invalid", 1
    if findings.number_of(UNCHECKED):
        return "unchecked", 2
    return "valid", 0


def text_report(findings: Findings, summary: str) -> Iterator[str]:
    shown_of: Counter[str] = Counter()
    for finding in findings.found:
        shown_of[finding.code] += 1
        if shown_of[finding.code] <= SHOWN_OF_A_KIND:
            where = f"{finding.where}: " if finding.where else ""
            yield f"{finding.severity:9}  {where}{finding.message}"
    for code, number in shown_of.items():
        if number > SHOWN_OF_A_KIND:
            yield f"           … and {number - SHOWN_OF_A_KIND:,} more of the kind {code}; --json lists them all."
    yield summary


# The command


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="validate.py",
        description="Checks an export manifest by itself and, with --files, against the exported files.",
        epilog="Exit code 0: nothing is wrong (notes aside); 1: something is wrong; 2: it could not be checked, or not "
        "to the end. Files are read as Landfall reads them by default: gzip by the first bytes; lines for .ndjson and "
        ".jsonl, rows for .csv, else by the first character.",
    )
    parser.add_argument("manifest", type=Path, help="the manifest, such as export-manifest.json")
    parser.add_argument(
        "--files",
        type=Path,
        metavar="FOLDER",
        help="the exported files; each one's path below FOLDER is its label, compressed exactly as it is uploaded",
    )
    parser.add_argument(
        "--manifest-label",
        default=DEFAULT_LABEL,
        metavar="LABEL",
        help="the label that the manifest is uploaded under (default: %(default)s)",
    )
    parser.add_argument("--strict", action="store_true", help="notes count as problems")
    parser.add_argument("--json", action="store_true", help="print one JSON object for machines instead of text")
    return parser.parse_args(given)


def read_manifest(path: Path) -> bytes:
    try:
        with open(path, "rb") as source:
            return source.read(MANIFEST_BYTES + 1)
    except OSError as error:
        raise CannotCheck(f"The manifest {quoted(str(path))} can't be read ({error.strerror}); name an existing file.") from error


def check(options: argparse.Namespace) -> int:
    content = read_manifest(options.manifest)
    if options.files is not None and not options.files.is_dir():
        raise CannotCheck(f"{quoted(str(options.files))} is not a folder; name the one that holds the exported files.")
    findings = Findings()
    declared = check_manifest(content, options.manifest_label, findings)
    understood = not any(finding.code in STOPS_FILES for finding in findings.found)
    compared = 0
    if options.files is not None and understood:
        compared = check_files(
            declared, options.files, options.manifest, options.manifest_label, findings, sys.stderr
        )
    result, code = result_of(findings, options.strict)
    if options.json:
        report = {
            "manifest": str(options.manifest),
            "folder": None if options.files is None else str(options.files),
            "result": result,
            "problems": findings.number_of(PROBLEM),
            "notes": findings.number_of(NOTE),
            "unchecked": findings.number_of(UNCHECKED),
            "files_named": len(declared),
            "files_compared": compared,
            "findings": [asdict(finding) for finding in findings.found],
        }
        print(json.dumps(report, indent=2))
    else:
        parts = [
            counted(findings.number_of(severity), noun)
            for severity, noun in ((PROBLEM, "problem"), (NOTE, "note"), (UNCHECKED, "unchecked thing"))
            if severity == PROBLEM or findings.number_of(severity)
        ]
        files = f"{counted(len(declared), 'file')} named"
        if options.files is not None:
            files += f", {compared:,} compared" if understood else ", none compared, because the manifest can't be read"
        for line in text_report(findings, f"{options.manifest}: {result}; {', '.join(parts)}; {files}."):
            print(line)
    return code


# With one of these nobody knows which files are meant.
STOPS_FILES = {
    "too-large",
    "compressed",
    "not-utf-8",
    "not-json",
    "nested-too-deep",
    "not-an-object",
    "files",
}


def main(given: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        # A label in a script that the terminal can't show must not end the check.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = arguments(given)
    try:
        code = check(options)
        sys.stdout.flush()
        return code
    except CannotCheck as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped before everything was checked; run it again for a result.", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python would complain once more at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


if __name__ == "__main__":
    sys.exit(main())
