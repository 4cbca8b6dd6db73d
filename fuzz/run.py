"""Runs fuzz targets one after the other, shows how they do, and keeps what they found: `make fuzz`."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
# The longest input, in bytes: what breaks a parser is small, and small inputs are quick.
LONGEST = 4096
# What one target may take, in megabytes: a parser that needs more for such an input is broken.
MEMORY = 1024
# The longest that one input may take, in seconds.
TIMEOUT = 20
# How often a line is printed where there is no terminal, in seconds.
QUIET = 60

# What a fuzzer says that somebody else has stopped, by SIGINT or SIGTERM.
INTERRUPTED = "libFuzzer: run interrupted"
STATUS = re.compile(r"#(\d+)\s.*cov: (\d+) .*corp: (\d+)/\S+ .*exec/s: (\d+)")


def targets() -> list[str]:
    """All targets, by name."""
    return sorted(path.stem for path in (HERE / "fuzz_targets").glob("*.rs"))


class Progress:
    """One line that is written over on a terminal, and now and then a line of its own elsewhere."""

    def __init__(self, target: str, seconds: int) -> None:
        self.target, self.seconds = target, seconds
        self.began = self.printed = time.monotonic()
        self.runs = self.coverage = self.corpus = self.rate = 0

    def seen(self, line: str) -> None:
        """Takes in a line of the fuzzer's."""
        if status := STATUS.match(line):
            self.runs, self.coverage, self.corpus, self.rate = map(int, status.groups())
        now = time.monotonic()
        if sys.stderr.isatty():
            print(f"\r\033[K{self.bar()}", end="", file=sys.stderr, flush=True)
        elif now - self.printed >= QUIET:
            self.printed = now
            print(self.bar(), file=sys.stderr, flush=True)

    def bar(self) -> str:
        """How far the run is."""
        passed = min(time.monotonic() - self.began, self.seconds)
        filled = int(20 * passed / max(self.seconds, 1))
        return (
            f"{self.target:14} [{'#' * filled}{'.' * (20 - filled)}] {passed:.0f}/{self.seconds} s,"
            f" {self.runs:,} inputs, {self.rate:,} a second, {self.coverage} places reached"
        )

    def end(self) -> None:
        """Leaves the line."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        passed = time.monotonic() - self.began
        print(f"{self.target:14} {passed:.0f} s, {self.runs:,} inputs, {self.coverage} places reached, {self.corpus} inputs in the corpus", flush=True)


def fuzz(*arguments: str) -> list[str]:
    """A call of cargo-fuzz. Without a sanitizer: there is no unsafe code here, so what one would find lies in the libraries."""
    return ["cargo", "fuzz", arguments[0], "--sanitizer", "none", *arguments[1:]]


def run(target: str, seconds: int) -> bool:
    """Searches for so long; true if nothing was found."""
    working = HERE / "working" / target
    working.mkdir(parents=True, exist_ok=True)
    progress = Progress(target, seconds)
    command = fuzz(
        "run", target, str(working), str(HERE / "corpus" / target), "--",
        f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-rss_limit_mb={MEMORY}", f"-timeout={TIMEOUT}",
    )
    said: list[str] = []
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace") as child:
        try:
            assert child.stderr
            for line in child.stderr:
                said = [*said[-60:], line]
                progress.seen(line)
        except KeyboardInterrupt:
            # The terminal has sent it to the fuzzer too, which ends by itself.
            child.send_signal(signal.SIGINT)
            child.wait()
            progress.end()
            raise
    progress.end()
    if child.returncode != 0 and any(INTERRUPTED in line for line in said):
        raise KeyboardInterrupt
    if child.returncode != 0:
        print("".join(said[-40:]), file=sys.stderr)
        print(f"{target}: an input breaks the property; the lines above name its file below fuzz/artifacts/{target}. Once it is mended, keep the", file=sys.stderr)
        print(f"input in fuzz/corpus/{target}: the tests replay it. Again: cd fuzz && {' '.join(fuzz('run', target, 'FILE'))}", file=sys.stderr)
    return child.returncode == 0


def keep(target: str) -> None:
    """Puts the smallest set of inputs that reaches all places in place of the corpus."""
    corpus, working = HERE / "corpus" / target, HERE / "working" / target
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        merged = Path(folder) / target
        merged.mkdir()
        command = fuzz("run", target, str(merged), str(corpus), str(working), "--", "-set_cover_merge=1", f"-max_len={LONGEST}")
        subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(list(corpus.iterdir()))
        shutil.rmtree(corpus)
        shutil.move(merged, corpus)
    kept = list(corpus.iterdir())
    print(f"{target:14} {before} inputs became {len(kept)} of {sum(path.stat().st_size for path in kept):,} bytes")


def main() -> int:
    """Runs what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="*", help="targets; without one, all of them share the time. " + ", ".join(targets()))
    parser.add_argument("--seconds", type=int, default=60, help="for all of them together")
    parser.add_argument("--keep", action="store_true", help="put the smallest set of inputs that reaches everything into fuzz/corpus afterwards")
    arguments = parser.parse_args()
    chosen = arguments.target or targets()
    for target in chosen:
        if target not in targets():
            parser.error(f"{target} is no target; there are {', '.join(targets())}")
    print("building ...", file=sys.stderr, flush=True)
    if subprocess.run(fuzz("build"), cwd=HERE, check=False).returncode != 0:
        return 1
    sound = True
    try:
        for target in chosen:
            sound &= run(target, max(1, arguments.seconds // len(chosen)))
            if arguments.keep:
                keep(target)
    except KeyboardInterrupt:
        print("\nstopped; what was found so far is in fuzz/working", file=sys.stderr)
        return 130
    return 0 if sound else 1


if __name__ == "__main__":
    os.environ.setdefault("CARGO_TERM_COLOR", "never")
    sys.exit(main())
