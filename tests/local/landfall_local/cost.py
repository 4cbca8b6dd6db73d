"""`make cost`: what Landfall costs on AWS, line by line, from what is counted and what is asked for it.

The counts are those that tests/simulation/tests/budgets has measured (tests/budgets/counts.json); prices, and everything that is assumed beside the counts, are in
tests/budgets/prices.toml; how much memory a function has is in the template.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from .settings import REPOSITORY, TEMPLATE

COUNTS = REPOSITORY / "tests" / "budgets" / "counts.json"
PRICES = REPOSITORY / "tests" / "budgets" / "prices.toml"

MILLION = 1_000_000
GIGABYTE = 1_000_000_000
MINUTES_OF_A_MONTH = 30 * 24 * 60
DAYS_OF_A_MONTH = 30

# Who runs as which function: the processor's two queues are two of the counts.
FUNCTIONS = {"intake": "IntakeFunction", "events": "ProcessorFunction", "imports": "ProcessorFunction", "sweeper": "SweeperFunction"}
NAMES = {"intake": "intake", "events": "processor", "imports": "processor", "sweeper": "sweeper"}
# The ledger: which records are in the target, and the records themselves where the target is the records table.
LEDGER = ("segment", "record")

COUNTED, ASSUMED = "counted", "counted, with assumed durations or bytes"
# What an item is for: to have an event taken in and its work begun and ended; that work itself; or to remember it afterwards.
PATH, WORK, KEPT = "the event's path", "the import itself", "what is kept of it"


@dataclass(frozen=True)
class Line:
    """One item of a bill, in dollars."""

    item: str
    dollars: float
    how: str = COUNTED
    purpose: str = PATH

    def times(self, factor: float) -> Line:
        """The same item so many times."""
        return replace(self, dollars=self.dollars * factor)


class Model:
    """The counts, the prices and the memory that functions have."""

    def __init__(self, counts: dict, prices: dict, template: str):
        self.counts = counts
        self.prices = prices
        self.memory = {name: memory_megabytes(template, resource) for name, resource in FUNCTIONS.items()}
        # Of INFO and of DEBUG, Lambda adds lines of its own to each invocation.
        self.lambda_adds_lines = default_of(template, "SystemLogLevel") != "WARN"
        self.alarms = len(re.findall(r"^    Type: AWS::CloudWatch::Alarm$", template, re.MULTILINE))

    @classmethod
    def load(cls) -> Model:
        """What is committed."""
        return cls(json.loads(COUNTS.read_text()), tomllib.loads(PRICES.read_text()), TEMPLATE.read_text())

    @cached_property
    def assumed(self) -> dict:
        """What is neither counted nor a price."""
        return self.prices["assumed"]["other"]

    # ------------------------------------------------------------ what some invocations cost

    def bill(self, counted: dict, times: float, *, http_api: bool = False) -> list[Line]:
        """What it costs to do so many times what was counted; an item that costs nothing is left out."""
        lines = [
            *self._front_door(counted, http_api),
            *self._invocations(counted),
            *self._tables(counted),
            *self._queues(counted),
            *self._bucket(counted),
            Line("logs", self._log_bytes(counted) / GIGABYTE * self.prices["logs"]["gigabyte"], ASSUMED if self.lambda_adds_lines else COUNTED),
            *self._history(counted),
        ]
        merged: dict[str, Line] = {}
        for line in lines:
            # The processor is there twice, once for each of its queues.
            before = merged[line.item].dollars if line.item in merged else 0.0
            merged[line.item] = replace(line, dollars=before + line.dollars)
        return [line.times(times) for line in merged.values() if line.dollars]

    def _front_door(self, counted: dict, http_api: bool) -> Iterator[Line]:
        calls = counted["functions"].get("intake", {}).get("invocations", 0)
        prices = self.prices["front_door"]
        if http_api:
            yield Line("HTTP API", calls * prices["million_http_api_calls"] / MILLION)
        else:
            yield Line("function URL", calls * prices["million_function_url_calls"] / MILLION)

    def _invocations(self, counted: dict) -> Iterator[Line]:
        prices = self.prices["lambda"]
        for function, work in counted["functions"].items():
            name = NAMES[function]
            yield Line(f"{name}: requests", work["invocations"] * prices["million_requests"] / MILLION)
            inside, outside = self.seconds(function, work, counted)
            memory = self.memory[function]
            yield Line(f"{name}: {memory} MB, tables and queues", self._compute(function, inside), ASSUMED)
            yield Line(f"{name}: {memory} MB, platform and sink", self._compute(function, outside), ASSUMED, WORK)

    def _compute(self, function: str, seconds: float) -> float:
        return seconds * self.memory[function] / 1024 * self.prices["lambda"]["gigabyte_second"]

    def seconds(self, function: str, work: dict, counted: dict) -> tuple[float, float]:
        """How long the invocations of a function take, waiting for the tables and the queues, and for everything else: one call after the other, but for the
        two of intake that are made at once, and the messages of a batch, which wait side by side."""
        waits = self.prices["assumed"]["milliseconds"]
        calls = dict(work["calls"])
        inside, outside = 0.0, 0.0
        if function == "intake":
            sends = sum(calls.pop(name) for name in list(calls) if name.endswith(".send"))
            writes = calls.pop("table.write", 0)
            inside += max(sends * waits["send"], writes * waits["write"])
        for name, times in calls.items():
            milliseconds = times * waits[_wait(name)]
            # The pace is asked for calls to the platform.
            if name.startswith(("platform.", "pace.", "bucket.", "sink.")):
                outside += milliseconds
            else:
                inside += milliseconds
        if function == "imports" and "imported" in counted:
            outside += counted["imported"]["bytes"] / 1e6 / self.assumed["megabytes_per_second"] * 1000
        at_once = work["handed"] / work["invocations"]
        return (work["invocations"] * waits["invocation"] + inside / at_once) / 1000, outside / at_once / 1000

    def _tables(self, counted: dict) -> Iterator[Line]:
        prices, rows = self.prices["dynamodb"], counted["rows"]

        def units(name: str, kinds) -> float:
            return sum(rows[kind][name] for kind in kinds if kind in rows)

        rest = [kind for kind in rows if kind not in LEDGER and kind != "pace"]
        write = prices["million_write_units"] / MILLION
        yield Line("DynamoDB: writes", units("write_units", rest) * write)
        yield Line("DynamoDB: writes of the index", units("index_write_units", rows) * write)
        yield Line("DynamoDB: writes of the ledger", units("write_units", ["segment"]) * write, purpose=WORK)
        yield Line("DynamoDB: writes of records", units("write_units", ["record"]) * write, purpose=WORK)
        yield Line("DynamoDB: writes of the site's pace", units("write_units", ["pace"]) * write, purpose=WORK)
        read = prices["million_read_units"] / MILLION / 2
        yield Line("DynamoDB: reads", units("half_read_units", [kind for kind in rows if kind != "pace"]) * read)
        yield Line("DynamoDB: reads of the site's pace", units("half_read_units", ["pace"]) * read, purpose=WORK)

    def _queues(self, counted: dict) -> Iterator[Line]:
        prices, queues = self.prices["sqs"], counted["queues"].values()
        sends = sum(queue["sends"] for queue in queues)
        others = sum(queue["receives"] + queue["deletes"] for queue in queues)
        others += sum(work["calls"].get(name, 0) for work in counted["functions"].values() for name in work["calls"] if name.startswith("dead-"))
        yield Line("SQS: sent, received, deleted", (sends + others) * prices["million_requests"] / MILLION)
        yield Line("SQS: fair queues", sends * prices["million_fair_requests"] / MILLION)

    def _bucket(self, counted: dict) -> Iterator[Line]:
        prices = self.prices["s3"]
        calls = {name: times for work in counted["functions"].values() for name, times in work["calls"].items()}
        reads = sum(calls.get(f"bucket.{name}", 0) for name in ("get_object", "read_object"))
        writes = sum(times for name, times in calls.items() if name.startswith("bucket.")) - reads
        yield Line("S3: objects written", writes * prices["million_writes"] / MILLION, purpose=WORK)
        yield Line("S3: objects read", reads * prices["million_reads"] / MILLION, purpose=WORK)

    def _log_bytes(self, counted: dict) -> float:
        lines, ours, added = self.prices["logs"]["bytes_of_a_line"], 0.0, 0.0
        for work in counted["functions"].values():
            ours += work["logged"]["bytes"] + work["logged"]["lines"] * lines
            added += work["invocations"] * self.assumed["log_bytes_of_lambda"]
        return ours + added * self.lambda_adds_lines

    def _history(self, counted: dict) -> Iterator[Line]:
        """Rows that expire, for as long as they are kept."""
        gigabyte_months = sum(
            self._stored_bytes(row) / GIGABYTE * row["kept_days"] / DAYS_OF_A_MONTH for row in counted["rows"].values() if row["kept_days"]
        )
        yield Line("DynamoDB: rows until they expire", gigabyte_months * self._gigabyte_month(), purpose=KEPT)

    def _stored_bytes(self, row: dict) -> float:
        return row["stored_bytes"] + row["stored"] * self.assumed["bytes_of_a_row"]

    def _gigabyte_month(self) -> float:
        prices = self.prices["dynamodb"]
        return prices["gigabyte_month"] + prices["gigabyte_month_recoverable"]

    # ------------------------------------------------------------ the questions

    def file_events(self, *, http_api: bool = False) -> list[Line]:
        """A million events that announce a file, and its import: what each file of ten records more costs a transfer, with an HTTP sink."""
        few, many = (self.counts["transfers"][files] for files in ("10", "100"))
        times = MILLION / (many["imported"]["files"] - few["imported"]["files"])
        return _difference(self.bill(many, times, http_api=http_api), self.bill(few, times, http_api=http_api))

    def control_events(self, *, http_api: bool = False) -> list[Line]:
        """A million events that announce no file: the one that the platform sends with each settlement."""
        return self.bill(self.counts["events"]["transfer-settled"], MILLION, http_api=http_api)

    def control_events_in_a_burst(self) -> list[Line]:
        """The same, behind a function URL, where so many come that the event source hands over whole batches."""
        burst = self.counts["burst"]
        return self.bill(burst, MILLION / burst["functions"]["events"]["handed"])

    def transfer(self, files: int, *, http_api: bool = False) -> list[Line]:
        """One transfer of so many small files, to an HTTP sink, from its first event to its last."""
        return self.bill(self.counts["transfers"][str(files)], 1, http_api=http_api)

    def gigabyte(self, sink: str) -> list[Line]:
        """A gigabyte of records of 300 bytes in long files: what a long file costs more than a short one."""
        long, short = self.counts["long_files"][sink], self.counts["files"][sink]
        more = long["imported"]["bytes"] - short["imported"]["bytes"]
        times = GIGABYTE / more
        lines = _difference(self.bill(long, times), self.bill(short, times))
        if sink == "http":
            lines.append(Line("to a service outside of AWS", self.prices["network"]["gigabyte_out"], purpose=WORK))
        # What differs by a row more or less is no matter of the gigabyte.
        return [line for line in lines if line.dollars > 0.00005]

    def gigabyte_seconds(self, sink: str) -> float:
        """How long one worker takes for that gigabyte."""
        seconds = []
        for counted in (self.counts["long_files"][sink], self.counts["files"][sink]):
            seconds.append(sum(self.seconds("imports", counted["functions"]["imports"], counted)))
        long, short = self.counts["long_files"][sink]["imported"], self.counts["files"][sink]["imported"]
        return (seconds[0] - seconds[1]) * GIGABYTE / (long["bytes"] - short["bytes"])

    def kept(self, sink: str) -> float:
        """What it costs a month to keep the records of a gigabyte in a target of Landfall's own; nothing where the target is the partner's."""
        counted = self.counts["long_files"][sink]
        record = counted["rows"].get("record")
        if record:
            return self._stored_bytes(record) / counted["imported"]["bytes"] * self._gigabyte_month()
        return self.prices["s3"]["gigabyte_month"] if sink == "s3" else 0.0

    def standing(self) -> list[Line]:
        """A month of a deployment in which nothing happens."""
        sweeps = self.bill(self.counts["sweeps"]["idle"], MINUTES_OF_A_MONTH)
        polls = 2 * self.assumed["polls_per_minute_of_a_queue"] * MINUTES_OF_A_MONTH
        return [
            Line("the sweeper, each minute", sum(line.dollars for line in sweeps), ASSUMED),
            Line("its schedule", MINUTES_OF_A_MONTH * self.prices["scheduler"]["million_invocations"] / MILLION),
            Line("SQS: polls of empty queues", polls * self.prices["sqs"]["million_requests"] / MILLION, ASSUMED),
            Line("the KMS key", self.prices["kms"]["key_month"]),
            Line(f"{self.alarms} alarms", self.alarms * self.prices["logs"]["alarm_month"]),
        ]

    def site(self) -> list[Line]:
        """A month of an installed site in which nothing happens: its regular comparison with the platform's lists."""
        times = MINUTES_OF_A_MONTH / self.assumed["minutes_between_comparisons"]
        counted, idle = self.counts["sweeps"]["comparison"], self.counts["sweeps"]["idle"]
        lines = _difference(self.bill(counted, times), self.bill(idle, times))
        # A process opens the sealed secret once an hour; the sweeper is one.
        lines.append(Line("KMS: its secret is opened", 24 * DAYS_OF_A_MONTH * self.prices["kms"]["million_requests"] / MILLION, ASSUMED))
        return [line for line in lines if line.dollars > 0.0]


def _wait(call: str) -> str:
    """What is assumed for a call of that name."""
    place, _, operation = call.rpartition(".")
    if place == "platform":
        return "download" if operation == "open" else "platform"
    if place == "bucket":
        return "bucket"
    return operation


def memory_megabytes(template: str, resource: str) -> int:
    """How much memory the template gives a function."""
    return int(_said(template, resource, "      MemorySize", r"\d+"))


def default_of(template: str, parameter: str) -> str:
    """What the template's parameter is unless somebody says otherwise."""
    return _said(template, parameter, "    Default", r"\S+")


def _said(template: str, name: str, key: str, value: str) -> str:
    """What the template says under a name, with the key's indentation."""
    body = re.search(rf"^  {name}:\n((?:    .*\n|\s*\n)+)", template, re.MULTILINE)
    found = body and re.search(rf"^{key}: ({value})$", body.group(1), re.MULTILINE)
    if not found:
        raise ValueError(f"{TEMPLATE.name} gives {name} no {key.strip()}")
    return found.group(1)


def _difference(lines: list[Line], less: list[Line]) -> list[Line]:
    """What is left of a bill without another."""
    fixed = {line.item: line.dollars for line in less}
    return [replace(line, dollars=line.dollars - fixed.get(line.item, 0.0)) for line in lines]


def total(lines: list[Line]) -> float:
    """What a bill comes to."""
    return sum(line.dollars for line in lines)


def _table(title: str, columns: dict[str, list[Line]], digits: int, *, by_purpose: bool = False) -> Iterator[str]:
    """A table with a row for each item and a column for each bill; by purpose, with a sum for each."""
    everything = [line for lines in columns.values() for line in lines]
    marks = {line.item: " *" if line.how == ASSUMED else "" for line in everything}

    def row(name: str, chosen) -> str:
        cells = [sum(line.dollars for line in lines if chosen(line)) for lines in columns.values()]
        return f"  {name:44}" + "".join(f"{cell:>16.{digits}f}" if cell else f"{'-':>16}" for cell in cells)

    yield title
    yield f"  {'':44}" + "".join(f"{name:>16}" for name in columns)
    for purpose in (PATH, WORK, KEPT) if by_purpose else (None,):
        items = dict.fromkeys(line.item for line in everything if purpose in (None, line.purpose))
        for item in items:
            yield row(item + marks[item], lambda line, item=item: line.item == item)
        if purpose:
            yield row(f"= {purpose}", lambda line, purpose=purpose: line.purpose == purpose)
    yield row("= all" if by_purpose else "total", lambda line: True)
    yield ""


def report(model: Model) -> str:
    """Everything that `make cost` prints."""
    prices = model.prices["list"]
    doors = {"function URL": False, "HTTP API": True}
    sinks = ("http", "dynamodb", "s3")
    lines = [
        f"Dollars, at list prices of {prices['date']} in {prices['region']}, without free tiers. Calls, units and messages are counted by tests",
        "(tests/budgets/counts.json); items with * rest on durations or bytes that are assumed (tests/budgets/prices.toml).",
        "",
        *_table(
            "A million events, each of which announces a file of its own (ten records, 3 KB) that is imported",
            {name: model.file_events(http_api=http) for name, http in doors.items()},
            3,
            by_purpose=True,
        ),
        *_table(
            "A million control events (transfer-settled, of a transfer that Landfall has settled)",
            {
                "function URL": model.control_events(),
                "ten at a time": model.control_events_in_a_burst(),
                "HTTP API": model.control_events(http_api=True),
            },
            3,
            by_purpose=True,
        ),
        *_table("A gigabyte of records of 300 bytes, by the sink", {sink: model.gigabyte(sink) for sink in sinks}, 4),
        *(f"  {sink}: {model.gigabyte_seconds(sink):,.0f} s of one worker; keeping it ${model.kept(sink):.2f} a month" for sink in sinks),
        "",
        *_table(
            "A whole transfer of small files, HTTP sink, behind a function URL",
            {f"{files} file" + "s" * (files > 1): model.transfer(files) for files in (1, 10, 100)},
            6,
        ),
        *_table("A month in which nothing happens", {"deployment": model.standing(), "each site more": model.site()}, 4),
    ]
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    """Prints the report."""
    try:
        print(report(Model.load()))
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough.
        sys.stdout = None
    return 0


if __name__ == "__main__":
    sys.exit(main())
