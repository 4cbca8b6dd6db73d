"""Runs the checks against a service and prints one line for each."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .checks import CHECKS, Check, Run, read_template
from .delivery import Failure, Service, UnusableArgument, secret_bytes

DESCRIPTION = "Checks a running service against the contract of Landfall's HTTP sink (openapi.yaml)."

EPILOGUE = """
The service gets some sixty requests with about 350 records (and with --raw some thirty more, with 30 MB) of the tenant "landfall-conformance". Every run uses new keys, and
deletes nothing: run it against a test system, and delete the records of that tenant yourself.

A service that doesn't take records like {"id": "…", "landfall_conformance": true, "revision": 1} gets its own with --record:
a file with one record in JSON, in whose strings {key} stands for the record's key and {revision} for what changes.

A certificate of a test authority of yours is accepted with the environment variable SSL_CERT_FILE. Landfall trusts the
authorities of the system that it runs on.

The exit code is 0 when all checks hold, 1 when one doesn't, 2 when the arguments can't be used.
"""


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m conformance", description=DESCRIPTION, epilog=EPILOGUE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="the service's URL, as sink.url of landfall.toml has it")
    parser.add_argument("--secret", help='"whsec_" and base64; without it the environment variable LANDFALL_SINK_SECRET counts')
    parser.add_argument("--timeout", type=float, default=20.0, metavar="SECONDS", help="for one delivery, as sink.timeout (default: 20)")
    parser.add_argument("--label", default="landfall-conformance.ndjson", help="the file's label in the batches (default: %(default)s)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="a record that the service takes, with {key} and {revision} in its strings")
    parser.add_argument("--raw", action="store_true", help='run the checks of raw files too, which an import with format = "raw" needs')
    parser.add_argument("--only", action="append", metavar="NAME", help="run only this check; can be given several times")
    parser.add_argument("--list", action="store_true", help="print the checks and what must hold, and send nothing")
    return parser


def show(outcome: str, check: Check) -> None:
    print(f"{outcome}  {check.name:<19} {check.must_hold}", flush=True)


def hold(check: Check, run: Run) -> bool:
    """Runs a check and prints what came of it."""
    try:
        notes = check.run(run)
    except Failure as failure:
        show("FAIL", check)
        print(f"      Wrong: {failure.wrong}")
        for exchange in failure.exchanges:
            print(f"      Sent:  {exchange.sent}.")
            print(f"      Back:  {exchange.came_back()}.")
        print(f"      Do:    {failure.advice}", flush=True)
        return False
    show("PASS", check)
    for note in notes:
        print(f"      Note:  {note}", flush=True)
    return True


def prepare(given: argparse.Namespace) -> tuple[list[Check], Run]:
    if not given.url:
        raise UnusableArgument("Give the service's URL with --url.")
    secret = given.secret or os.environ.get("LANDFALL_SINK_SECRET", "")
    if not 0 < given.timeout <= 60:
        raise UnusableArgument("The time-out must be above 0 and at most 60 seconds, as that of sink.timeout.")
    names = {check.name for check in CHECKS}
    if unknown := [name for name in given.only or [] if name not in names]:
        raise UnusableArgument(f"There is no check {unknown[0]!r}. See their names with --list.")
    template = None
    if given.record:
        try:
            template = read_template(given.record.read_text(encoding="utf-8"))
        except OSError as error:
            raise UnusableArgument(f"The file of --record can't be read: {error.strerror}. Give the path of a JSON file.") from None
    run = Run(Service(given.url, given.timeout), secret_bytes(secret), given.label, template)
    if given.only:
        return [check for check in CHECKS if check.name in given.only], run
    return [check for check in CHECKS if given.raw or not check.raw], run


def main() -> int:
    parser = arguments()
    given = parser.parse_args()
    if given.list:
        for check in CHECKS:
            print(f"{check.name:<19} {check.must_hold}{' (with --raw)' if check.raw else ''}")
        return 0
    try:
        checks, run = prepare(given)
    except UnusableArgument as unusable:
        print(f"{unusable}\nSee python3 -m conformance --help.", file=sys.stderr)
        return 2
    if not run.service.landfall_takes_it:
        print("Note: Landfall itself delivers to https URLs, and to http only on a loopback host.")
    failed = 0
    for position, check in enumerate(checks):
        if hold(check, run):
            continue
        failed += 1
        if check.name == "accepted":
            print(f"\nThe service doesn't take a plain delivery, so the other {len(checks) - position - 1} checks were left out. Mend that first.")
            return 1
    if failed:
        print(f'\n{failed} of {len(checks)} checks don\'t hold. Mend what stands behind "Do", and run them again.')
        return 1
    print(f"\nAll {len(checks)} checks hold.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nInterrupted. What was delivered so far stays in the service.", file=sys.stderr)
        sys.exit(130)
