"""The end-to-end tests in lanes: pytest processes side by side, each with a cloud and a twin of its own, and with its share of the files.

Most of a test's time is waiting for scaled clocks, so two lanes take about half as long as one. A file is never split: its tests
share stacks.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .settings import REPOSITORY

# One per core of a small machine: with more, clocks run out because nobody had time to work.
LANES = 2

# About how long each file takes beside another lane, for lanes that end together; nothing else depends on it.
SECONDS = {
    "test_forge.py": 370,
    "test_sweeper.py": 190,
    "test_quota.py": 180,
    "test_delivery.py": 130,
    "test_many.py": 110,
    "test_http_sink.py": 95,
    "test_staged.py": 90,
    "test_rerun.py": 85,
    "test_flavours.py": 40,
    "test_bad_input.py": 35,
    "test_containers.py": 35,
    "test_crash.py": 34,
    "test_outage.py": 22,
    "test_roles.py": 17,
    "test_conformance.py": 15,
    "test_s3_sink.py": 11,
    "test_logs.py": 11,
    "test_receipt.py": 10,
}
# A file that is not listed has a lane nevertheless.
_UNKNOWN_SECONDS = 30

# A lane that was asked to end takes its cloud down first.
_PATIENCE_SECONDS = 60


def assigned(files: Iterable[str], lanes: int) -> dict[str, int]:
    """The lane of each file, counted from 1: the longest file first, each into the lane that has least to do so far.

    Every lane works this out for itself and comes to the same, so each file is in one of them and none is in two.
    """
    busy = [0] * lanes
    chosen = {}
    for file in sorted(set(files), key=lambda file: (-SECONDS.get(file, _UNKNOWN_SECONDS), file)):
        lane = busy.index(min(busy))
        busy[lane] += SECONDS.get(file, _UNKNOWN_SECONDS)
        chosen[file] = lane + 1
    return chosen


@dataclass
class Lane:
    """One pytest process, its output, and how far the output was shown."""

    number: int
    process: subprocess.Popen
    output: Path
    shown: int = 0

    def show(self) -> None:
        """Prints the lines that are new, whole ones only, with the lane's number before each."""
        with self.output.open("rb") as output:
            output.seek(self.shown)
            new = output.read()
        if self.process.poll() is None:
            new = new[: new.rfind(b"\n") + 1]
        self.shown += len(new)
        for line in new.decode(errors="replace").splitlines():
            print(f"{self.number} | {line}", flush=True)


def run(folder: str, reports: Path) -> list[tuple[Path, int]]:
    """Runs a folder's tests in lanes and shows what they print; gives each lane's JUnit report and exit code."""
    name = folder.rsplit("/", 1)[1]
    lanes = []
    try:
        for number in range(1, LANES + 1):
            output = reports / f"{name}-{number}.txt"
            command = [sys.executable, "-m", "pytest", folder, "-v", f"--lane={number}", f"--junitxml={reports / f'{name}-{number}.xml'}"]
            lanes.append(Lane(number, _start(command, output), output))
        while any(lane.process.poll() is None for lane in lanes):
            for lane in lanes:
                lane.show()
            time.sleep(0.5)
        for lane in lanes:
            lane.show()
    finally:
        _end([lane.process for lane in lanes])
    return [(reports / f"{name}-{lane.number}.xml", lane.process.returncode) for lane in lanes]


def run_alone(command: list[str]) -> int:
    """Runs tests in one process that prints for itself; gives its exit code."""
    process = _start(command)
    try:
        return process.wait()
    finally:
        _end([process])


def _start(command: list[str], output: Path | None = None) -> subprocess.Popen:
    # Away from the terminal's Ctrl-C: we end our processes ourselves, once, so that nothing interrupts them while they clean up.
    with output.open("wb") if output else contextlib.nullcontext() as file:
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=file, stderr=file and subprocess.STDOUT, start_new_session=True
        )


def _end(processes: list[subprocess.Popen]) -> None:
    """Asks those that still run to end, as Ctrl-C would, and waits for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
