"""`make explain`: how a transfer does, in one sentence, and what happened to it."""

from __future__ import annotations

import datetime

from .settings import Problem
from .tracking import Tracking, Transfer


def find(tracking: Tracking, wanted: str, tenant: str | None) -> Transfer:
    """The transfer of that id, or the only one whose id begins so: `make status` shows eight characters."""
    everywhere = [transfer for transfer in tracking.transfers() if transfer.identifier.startswith(wanted)]
    found = [transfer for transfer in everywhere if tenant in (None, transfer.tenant)]
    whole = [transfer for transfer in found if transfer.identifier == wanted]
    # A second phase begins as the transfer does whose records it imports.
    whole = whole or [transfer for transfer in found if "+" not in transfer.identifier]
    found = whole or found
    if len(found) == 1:
        return found[0]
    if found:
        named = "\n  ".join(f"{transfer.identifier} of {transfer.tenant}" for transfer in found)
        raise Problem(f"more than one transfer is meant by {wanted}; give the whole id, or SITE=name:\n  {named}")
    if everywhere:
        raise Problem(f"transfer {everywhere[0].identifier} is another site's: leave SITE out, or name its own")
    raise Problem(f"no transfer {wanted} was ever seen here; make status lists those that were")


def words(answer: dict) -> str:
    """The sweeper's answer as a person reads it: the verdict first, then the timeline."""
    later = answer.get("second_phase")
    phase = [f"second phase ({later['transfer']}): {later['verdict']}"] if later else []
    return "\n".join([answer["verdict"], *phase, "", *(_line(line) for line in answer["timeline"])])


def _line(line: dict) -> str:
    cause = f"  [{line['cause']}]" if line["cause"] else ""
    return f"{_utc(line['at_ms'])}  {line['by']:9}  {line['what']}{cause}"


def _utc(at_ms: int) -> str:
    at = datetime.datetime.fromtimestamp(at_ms // 1000, datetime.timezone.utc)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at_ms % 1000:03} UTC"
