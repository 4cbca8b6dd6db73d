"""`make bench`: what the functions and their hot paths cost on this machine, as one table and one file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from .build import FOOTPRINT, PROGRAMS, build
from .settings import REPOSITORY, STATE, TARGET, Problem

FOLDER = STATE / "bench"
REPORT = FOLDER / "bench.json"
BESIDE = REPOSITORY / "tests" / "bench" / "beside"
# What its libraries and its bootstrap need.
NODE_OLDEST = (20, 15)
_FLOOR = "floor: "


def run(only: list[str]) -> None:
    """Builds what goes to AWS, measures it, and writes it all down. `only` names parts: functions, hot-paths; none means both."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    report = {}
    if not only or "functions" in only:
        report["functions"] = _functions()
    if not only or "hot-paths" in only:
        report["hot_paths"] = _hot_paths()
        print(table(report["hot_paths"]))
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nAll figures: {REPORT.relative_to(REPOSITORY)}. docs/performance.md says how to read them.")


def _functions() -> dict:
    # Apart: built together, the functions would get features that only the harness asks for.
    build(*PROGRAMS, profile="release")
    build(FOOTPRINT, profile="release")
    found = FOLDER / "functions.json"
    release = TARGET / "release"
    command = [str(release / FOOTPRINT), "measure", "--functions", str(release), "--json", str(found)]
    for name, program in beside().items():
        command += ["--beside", f"{name}={program}"]
    _do(command, "the functions could not be measured")
    return json.loads(found.read_text())


def beside() -> dict[str, str]:
    """The handlers of other languages, made ready, each with the command that starts it. What this machine lacks is said and left out."""
    found = {}
    for name, prepare in (("node", _node), ("python", _python)):
        try:
            found[name] = prepare()
        except Problem as problem:
            print(f"Not measured beside, {name}: {problem}", flush=True)
    return found


def _node() -> str:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise Problem("Node isn't installed (Debian, Ubuntu: apt install nodejs npm)")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < NODE_OLDEST:
        raise Problem(f"it is {version}, and its handler needs {'.'.join(map(str, NODE_OLDEST))} or newer")
    folder = BESIDE / "node"
    handler = folder / "dist" / "handler.cjs"
    sources = [path for path in folder.iterdir() if path.is_file()]
    if not handler.exists() or any(path.stat().st_mtime > handler.stat().st_mtime for path in sources):
        for step in ([npm, "ci", "--no-fund", "--no-audit"], [npm, "run", "build"]):
            _do(step, f"npm {step[1]} failed; its message is above", folder)
    return f"{node} {folder / 'bootstrap.cjs'}"


def _python() -> str:
    environment = FOLDER / "python"
    python = environment / "bin" / "python"
    requirements = BESIDE / "python" / "requirements.txt"
    installed = environment / requirements.name
    if not installed.exists() or installed.read_text() != requirements.read_text():
        _do([sys.executable, "-m", "venv", "--clear", str(environment)], "no virtual environment could be made")
        _do([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)], "its packages could not be installed")
        shutil.copy(requirements, installed)
    return f"{python} {BESIDE / 'python' / 'bootstrap.py'}"


def _hot_paths() -> list[dict]:
    folder = TARGET / "criterion"
    shutil.rmtree(folder, ignore_errors=True)
    _do(["cargo", "bench", "--locked", "--package", "landfall-bench"], "the benchmarks failed")
    return read(folder)


def read(folder: Path) -> list[dict]:
    """What Criterion has written down: of each path and each floor its median, its spread and its rate."""
    found = []
    for estimates in sorted(folder.glob("*/*/new/estimates.json")):
        named = json.loads((estimates.parent / "benchmark.json").read_text())
        figures = json.loads(estimates.read_text())
        bytes_of = (named.get("throughput") or {}).get("Bytes")
        median = figures["median"]["point_estimate"]
        found.append(
            {
                "group": named["group_id"],
                "name": named["function_id"],
                "median_ns": median,
                "spread_ns": figures["median_abs_dev"]["point_estimate"],
                "megabytes_per_second": bytes_of / median * 1e3 if bytes_of else None,
            }
        )
    return found


def table(paths: list[dict]) -> str:
    """The paths with their floors, as text."""
    lines = ["", f"{'CPU time of one thread, medians':66} {'':>12} {'spread':>8} {'MB/s':>8}"]
    for group in dict.fromkeys(path["group"] for path in paths):
        lines.append(group)
        members = [path for path in paths if path["group"] == group]
        for path in sorted(members, key=lambda path: path["name"].startswith(_FLOOR)):
            spread = 100 * path["spread_ns"] / path["median_ns"]
            rate = f"{path['megabytes_per_second']:,.0f}" if path["megabytes_per_second"] else ""
            lines.append(f"  {path['name']:64} {_duration(path['median_ns']):>12} {spread:6.1f} % {rate:>8}")
    return "\n".join(lines)


def _duration(nanoseconds: float) -> str:
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.2f} {unit}"
    return f"{nanoseconds:.0f} ns"


def _do(command: list[str], problem: str, folder: Path = REPOSITORY) -> None:
    if subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL).returncode != 0:
        raise Problem(problem)
