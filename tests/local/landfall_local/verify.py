"""`make test`: every test there is, and one line at the end that counts them."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from . import build, lanes
from .build import CORE, FOOTPRINT, PROGRAMS, SIMULATION, TWIN
from .settings import DEFAULT_CONFIG, REPOSITORY, STATE, TARGET, Problem
from .stack import FUNCTIONS, binary, package

_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

# Runs of the simulation's program, a line each; each counts as one test.
_SIMULATIONS = {
    "1,000 seeds": ("seeds", "--seeds", "1000"),
}

# Folders that partners copy are left as they are.
_NO_CACHE = ("-p", "no:cacheprovider")

_END_TO_END = "tests/local/e2e"
_REPORTS = STATE / "reports"

# On two cores a run takes well under a minute; one that takes longer than this hangs.
_SIMULATION_SECONDS = 600


@dataclass
class Count:
    """What one part came to."""

    passed: int = 0
    failed: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.passed + other.passed, self.failed + other.failed)


def run(select: str | None) -> int:
    """Runs all parts, whatever becomes of the earlier ones. `select` narrows the end-to-end tests and leaves the others out."""
    total = Count()
    if select is None:
        total += _cargo("unit, protocol and contract tests (cargo test)", "--workspace", "--exclude", SIMULATION)
        total += _python("tests/local/unit", "the local cloud's own tools")
        total += _python("contracts/manifest", "the export manifest: schema and validator", *_NO_CACHE)
        total += _python("contracts/sink", "the HTTP sink: contract and conformance test", *_NO_CACHE)
    total += _built(select)
    print(f"passed {total.passed}, failed {total.failed}", flush=True)
    return 0 if total.failed == 0 and total.passed > 0 else 1


def _cargo(title: str, *options: str) -> Count:
    _say(title)
    process = subprocess.Popen(
        ["cargo", "test", "--locked", "--no-fail-fast", *options],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    count = Count()
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        if result := _RESULT.match(_COLOURS.sub("", line)):
            count += Count(int(result.group(1)), int(result.group(2)))
    return _settled(count, process.wait(), title)


def _built(select: str | None) -> Count:
    """What needs the programs as they are deployed: the simulation and the end-to-end tests."""
    _say("building the functions, the twin and the simulation" if select is None else "building the functions and the twin")
    command = ["cargo", "build", "--locked", "--profile", "local"]
    for package in (*PROGRAMS, TWIN, *([SIMULATION] if select is None else [])):
        command += ["--package", package]
    if code := subprocess.run(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL).returncode:
        return _settled(Count(), code, "the build for the local cloud")
    total = Count()
    if select is None:
        # The enumerations are complete only where they are optimised.
        total += _cargo("crashes, interleavings and searches (cargo test, optimised)", "--profile", "local", "--package", SIMULATION)
        # The same code with one mistake at a time: a layer of the tests that has gone blind is noticed here.
        planted = ("--features", "seeded-bugs")
        total += _cargo("seeded bugs: the core", "--package", CORE, *planted, "--test", "core", "seeded")
        total += _cargo("seeded bugs: the other layers", "--profile", "local", "--package", SIMULATION, *planted, "--test", "seeded_bugs")
        for title, arguments in _SIMULATIONS.items():
            total += _simulation(title, arguments)
        total += _footprint()
    return total + _end_to_end(select)


def _end_to_end(select: str | None) -> Count:
    """In lanes; selected ones are few, and in one lane."""
    title = "end-to-end tests on the local cloud"
    if select is not None:
        return _python(_END_TO_END, title, "-k", select)
    _say(f"{title}, in {lanes.LANES} lanes")
    _REPORTS.mkdir(parents=True, exist_ok=True)
    for report in _REPORTS.glob("e2e-*"):
        report.unlink()
    total = Count()
    for number, (report, code) in enumerate(lanes.run(_END_TO_END, _REPORTS), start=1):
        total += _settled(_reported(report), code, f"lane {number} of {_END_TO_END}")
    return total


def _footprint() -> Count:
    """What goes to AWS, against its budgets: sizes, memory, calls and bytes. No times, so it means the same on a busy machine."""
    title = "budgets of the release build (tests/budgets/budgets.toml)"
    _say(title)
    try:
        # Apart: built together, the functions would get features that only the harness asks for.
        build.build(*PROGRAMS, profile="release")
        build.build(FOOTPRINT)
    except Problem:
        return _settled(Count(), 1, "the release build")
    release, zips = TARGET / "release", STATE / "budgets"
    zips.mkdir(parents=True, exist_ok=True)
    for name in FUNCTIONS:
        (zips / f"{name}.zip").write_bytes(package((release / f"landfall-{name}").read_bytes(), DEFAULT_CONFIG.read_bytes()))
    code = subprocess.run(
        [binary("footprint"), "check", "--functions", release, "--zips", zips], cwd=REPOSITORY, stdin=subprocess.DEVNULL
    ).returncode
    return Count(1, 0) if code == 0 else _settled(Count(), code, title)


def _simulation(title: str, arguments: tuple[str, ...]) -> Count:
    """One run of the simulation. What it found it says itself; its progress bar shows on a terminal only."""
    _say(f"simulation: {title}")
    began = time.monotonic()
    try:
        code = subprocess.run(
            [binary("simulation"), *arguments], cwd=REPOSITORY, stdin=subprocess.DEVNULL, timeout=_SIMULATION_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"simulation: {title} did not end within {_SIMULATION_SECONDS} s", flush=True)
        return Count(0, 1)
    print(f"in {time.monotonic() - began:.0f} s", flush=True)
    return Count(1, 0) if code == 0 else _settled(Count(), code, f"simulation: {title}")


def _python(folder: str, title: str, *options: str) -> Count:
    _say(title)
    report = _REPORTS / f"{folder.rsplit('/', 1)[1]}.xml"
    _REPORTS.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    code = lanes.run_alone([sys.executable, "-m", "pytest", folder, f"--junitxml={report}", *options])
    return _settled(_reported(report), code, folder)


def _reported(report: Path) -> Count:
    """What a JUnit report counts; nothing if the tests ended before they wrote one."""
    count = Count()
    if report.exists():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            tests, bad, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "skipped"))
            bad += int(suite.get("errors", 0))
            count += Count(max(tests - bad - skipped, 0), bad)
    return count


def _settled(count: Count, code: int, what: str) -> Count:
    """A part that ended badly without a failed test of its own (it didn't compile, it was killed) is a failure too."""
    if code != 0 and count.failed == 0:
        print(f"{what} ended with code {code}", flush=True)
        return count + Count(0, 1)
    return count


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)
