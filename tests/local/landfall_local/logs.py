"""Following the functions' logs in CloudWatch."""

from __future__ import annotations

import json
import time

from rich.console import Console
from rich.text import Text

from .stack import Stack

_COLOURS = {"intake": "cyan", "processor": "green", "sweeper": "magenta"}
# What Lambda itself writes around every invocation.
_PLATFORM = ("START RequestId", "END RequestId", "REPORT RequestId")


def events(stack: Stack, group: str, since_ms: int = 0) -> list[dict]:
    """All log events of a group, oldest first."""
    found = []
    pages = stack.cloud.client("logs").get_paginator("filter_log_events")
    for page in pages.paginate(logGroupName=group, startTime=since_ms):
        found += page["events"]
    return sorted(found, key=lambda event: event["timestamp"])


def follow(stack: Stack) -> None:
    """Prints the three logs as they come. MiniStack has them when an invocation has ended."""
    console = Console(highlight=False, soft_wrap=True)
    groups = stack.outputs["LogGroups"].split()
    # MiniStack gives every invocation a log stream of its own, and numbers no events: what was shown is known by count.
    shown: dict[tuple[str, str], int] = {}
    since = 0
    while True:
        started = int(time.time() * 1000)
        fresh = []
        for group in groups:
            found: dict[tuple[str, str], list[dict]] = {}
            for event in events(stack, group, since):
                found.setdefault((group, event["logStreamName"]), []).append(event)
            for place, lines in found.items():
                for event in lines[shown.get(place, 0) :]:
                    fresh.append((event["timestamp"], group.rsplit("/", 1)[1], event["message"].rstrip()))
                shown[place] = len(lines)
        for timestamp, name, message in sorted(fresh, key=lambda line: line[0]):
            if not message.startswith(_PLATFORM):
                console.print(_line(timestamp, name, message))
        # An invocation's lines all carry the time of its end, so a stream is either wholly in the window or not at all.
        since = started - 60_000
        time.sleep(0.5)


def _line(timestamp: int, name: str, message: str) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(timestamp / 1000))
    text = Text(f"{clock} {name:9} ", style=_COLOURS.get(name, ""))
    try:
        parsed = json.loads(message)
    except ValueError:
        return text.append(message, style="default")
    if not isinstance(parsed, dict):
        return text.append(message, style="default")
    fields = parsed.pop("fields", {}) if isinstance(parsed.get("fields"), dict) else {}
    level = str(parsed.pop("level", ""))
    sentence = str(fields.pop("message", parsed.pop("message", "")))
    for noise in ("timestamp", "target", "span", "spans"):
        parsed.pop(noise, None)
    style = {"ERROR": "bold red", "WARN": "yellow"}.get(level, "default")
    text.append(f"{level:5} {sentence}", style=style)
    for key, value in (parsed | fields).items():
        text.append(f" {key}={value}", style="dim")
    return text
