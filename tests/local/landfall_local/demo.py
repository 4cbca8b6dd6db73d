"""The main job, shown: a migration that arrives, one that dies half-way, is swept to FAILED, re-run, and succeeds; and one on Forge."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .settings import Problem
from .stack import Stack
from .tracking import COUNTS, Tracking
from .twin import CONNECT_EVENTS, FORGE_EVENTS, AppIdentity, Twin

SITE = "harbour"
# Where the app is installed as a Forge app.
FORGE_SITE = "orchard"
# Where nobody looks (a pipe, a log) the width is not eighty columns but what the table needs.
CONSOLE = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

# What a transfer may take here before something must be wrong.
_PATIENCE_SECONDS = 90
_LOOK_SECONDS = 0.25
_BYTES_PER_SECOND = 250_000

# Both formats, plain and packed, and the manifest that says when all have come.
FIRST_EXPORT = [
    {"label": "issues-{n}-of-{of}.ndjson", "copies": 3, "format": "ndjson", "records": 2500},
    {"label": "comments.json", "format": "json", "records": 2000},
    {"label": "worklogs.ndjson.gz", "format": "ndjson", "records": 2500, "gzip": True},
    {"label": "attachments.json.gz", "format": "json", "records": 1500, "gzip": True},
]
SECOND_EXPORT = [{"label": "pages-{n}-of-{of}.ndjson", "copies": 4, "format": "ndjson", "records": 1500}]
FORGE_EXPORT = [
    {"label": "cards-{n}-of-{of}.ndjson", "copies": 4, "format": "ndjson", "records": 1500},
    {"label": "checklists.json.gz", "format": "json", "records": 1000, "gzip": True},
    {"label": "votes.ndjson.gz", "format": "ndjson", "records": 1000, "gzip": True},
]


def app_identity(config: Path) -> AppIdentity:
    """`app.key` and `forge.app` of a landfall.toml: the twin has to know which app it is."""
    try:
        declared = tomllib.loads(config.read_text())
        app = AppIdentity(declared.get("app", {}).get("key"), declared.get("forge", {}).get("app"))
    except (tomllib.TOMLDecodeError, AttributeError, UnicodeDecodeError) as error:
        raise Problem(f"{config}: app.key and forge.app can't be read ({error})") from error
    if not (app.key or app.forge_app):
        raise Problem(f"{config}: neither app.key nor forge.app says which app it is")
    return app


def run(stack: Stack, twin: Twin, app: AppIdentity) -> None:
    """The stories of the flavours that the app has, and the table at their end."""
    tracking = Tracking(stack)
    # Files come over a slow line, so that there is something to see.
    twin.switch(store_bytes_per_second=_BYTES_PER_SECOND)
    if app.key:
        _run_connect(stack, twin, tracking)
    if app.forge_app:
        _run_forge(stack, twin, tracking)
    twin.switch(store_bytes_per_second=None)
    CONSOLE.print()
    print_transfers(tracking, twin)


def _run_connect(stack: Stack, twin: Twin, tracking: Tracking) -> None:
    """A migration that arrives, and one that dies and is re-run."""
    installation = twin.install(SITE, stack.base_url)
    tenant = installation["client_key"]
    CONSOLE.print(f"The app is installed on the twin's site [bold]{SITE}[/] ({installation['base_url']}).\n")

    CONSOLE.print("[bold]1.[/] A migration: six files in two formats, two of them packed, and a manifest.")
    first = twin.migrate(SITE, FIRST_EXPORT, name="Wave 1", manifest=True, parallel=3, order="shuffled")
    _watch(stack, twin, tracking, tenant, first, expected="SUCCESS")

    CONSOLE.print("\n[bold]2.[/] A migration whose export dies after two of four files. The sweeper settles it FAILED, so that it can be re-run.")
    second = twin.migrate(SITE, SECOND_EXPORT, name="Wave 2", manifest=True, stop_export_after=2)
    _watch(stack, twin, tracking, tenant, second, expected="FAILED", dies=True)

    CONSOLE.print("\n   The admin re-runs it: the whole export comes again, and what is already there is not applied again.")
    again = twin.rerun(second["transfer_id"], stop_export_after=None)
    _watch(stack, twin, tracking, tenant, again, expected="SUCCESS")

    _check_chain(tracking, tenant, second["transfer_id"], again["transfer_id"])


def _run_forge(stack: Stack, twin: Twin, tracking: Tracking) -> None:
    """A migration on Forge: its files' messages are answered, and the platform draws the conclusion."""
    installation = twin.install_forge(FORGE_SITE, stack.base_url)
    tenant = twin.tenant(installation)
    CONSOLE.print(f"\nThe Forge app is installed on the twin's site [bold]{FORGE_SITE}[/] ({installation['site_url']}).\n")
    answered = twin.refresh_forge(FORGE_SITE)
    if answered.get("status") != 200:
        raise Problem(f"the app did not take the scheduled trigger's call: {answered.get('status')} {answered.get('body') or answered.get('error')}")
    CONSOLE.print("[bold]3.[/] A migration on Forge: six files. The app answers the message of each, and the platform computes progress and verdict.")
    third = twin.migrate(FORGE_SITE, FORGE_EXPORT, name="Wave 3", flavour="forge", parallel=3, order="shuffled")
    _watch(stack, twin, tracking, tenant, third, expected="SUCCESS")
    _check_answers(twin, third["transfer_id"])


def _check_answers(twin: Twin, identifier: str) -> None:
    """Each message must have been answered once, SUCCESS."""
    forge = twin.transfer(identifier)["forge"]
    answers = [(message["answer"], message["answers"]) for message in forge["messages"]]
    if set(answers) != {("SUCCESS", 1)}:
        raise Problem(f"not every message was answered SUCCESS once: {answers}")
    CONSOLE.print(
        f"   The platform says so by {len(answers)} messages, each answered SUCCESS once; "
        f"it waited {forge['longest_silence_ms'] / 1000:.0f} s for an answer at most, and would have for 15 minutes.",
        soft_wrap=True,
    )


def _watch(stack: Stack, twin: Twin, tracking: Tracking, tenant: str, plan: dict, *, expected: str, dies: bool = False) -> None:
    """Shows a transfer's files filling until the platform has its verdict."""
    identifier = plan["transfer_id"]
    began = time.monotonic()
    swept = began
    with Progress(
        TextColumn("   {task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=CONSOLE,
    ) as progress:
        bars = {
            file["s3_key"]: progress.add_task(file["label"] or file["s3_key"], total=file["records"] or None, note="")
            for file in plan["files"]
            if file["label"] != "export-manifest"
        }
        while True:
            platform = twin.transfer(identifier)
            _fill(progress, bars, tracking.files(tenant, identifier))
            if platform["state"] not in ("READY", "IN_PROGRESS", "CANCELLATION_REQUESTED"):
                break
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise Problem(_stuck(stack, tenant, identifier, platform))
            # The schedule runs it every minute; here nobody wants to wait for that.
            if time.monotonic() - swept > 1.0:
                stack.sweep()
                swept = time.monotonic()
            time.sleep(_LOOK_SECONDS)
    if platform["state"] != expected:
        raise Problem(f"the transfer ended {platform['state']} instead of {expected}: {platform.get('message')}")
    colour = "green" if expected == "SUCCESS" else "red"
    CONSOLE.print(f"   [bold {colour}]{platform['state']}[/] {platform.get('message') or ''}", soft_wrap=True)
    if dies:
        CONSOLE.print("   [dim]settled by the sweeper, long before the platform's 14 days: the re-run button works[/]")


def _fill(progress: Progress, bars: dict[str, TaskID], files: list[dict]) -> None:
    for row in files:
        bar = bars.get(row["s3_key"])
        if bar is None:
            continue
        counts = json.loads(row.get("counts") or "{}")
        note = f"{counts['unchanged']} unchanged" if counts.get("unchanged") else ""
        progress.update(bar, completed=counts.get("read", 0), note=note)


def _stuck(stack: Stack, tenant: str, identifier: str, platform: dict) -> str:
    timeline = "\n  ".join(line["what"] for line in stack.explain(tenant, identifier)["timeline"][-12:])
    return f"transfer {identifier} is still {platform['state']} after {_PATIENCE_SECONDS} s; its timeline ends:\n  {timeline}"


def _check_chain(tracking: Tracking, tenant: str, original: str, rerun: str) -> None:
    """No record of the chain may have been applied twice."""
    first, second = tracking.transfer(tenant, original), tracking.transfer(tenant, rerun)
    if first is None or second is None:
        raise Problem("the chain's transfers are not tracked")
    if second.counts["unchanged"] != first.counts["applied"] or not (first.balanced and second.balanced):
        raise Problem(f"records don't add up: {first.counts} and then {second.counts}")
    CONSOLE.print(
        f"   The first attempt applied {first.counts['applied']} records; the re-run found all of them unchanged and applied "
        f"only the other {second.counts['applied']}."
    )


def print_transfers(tracking: Tracking, twin: Twin | None) -> None:
    """The table of all transfers."""
    table = Table(title="Transfers", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("transfer", "original", "verdict", "files"):
        table.add_column(name, no_wrap=True)
    for name in COUNTS:
        table.add_column(name, justify="right", no_wrap=True)
    for transfer in tracking.transfers():
        verdict = transfer.verdict or transfer.phase.lower()
        if twin is not None:
            verdict = twin.transfer(transfer.identifier)["state"]
        table.add_row(
            transfer.identifier[:8],
            (transfer.original or "")[:8] or "-",
            verdict,
            f"{transfer.files_ended}/{transfer.files_known}",
            *(str(transfer.counts[name]) for name in COUNTS),
        )
    CONSOLE.print(table)


def explain(stack: Stack, twin: Twin, app: AppIdentity) -> None:
    """What can be done now."""
    migrations = "\n".join(
        f"""  curl -s {twin.url}/control/migrations -H 'content-type: application/json' \\
    -d '{{"site":"{site}","files":[{{"label":"mine.ndjson","records":5000}}],"manifest":true}}'"""
        for site in _sites(app)
    )
    events = "\n".join(
        f"""  curl -i {stack.base_url}{path} -H 'content-type: application/json' \\
    -H "$(make -s token SITE={site})" \\
    -d '{json.dumps(event)}'"""
        for site, (path, event) in ((site, example_event(twin, site)) for site in _sites(app))
    )
    CONSOLE.print(
        f"""
[bold]All of it stays up until Ctrl-C.[/]
  the app          {stack.base_url}
  the twin         {twin.url}   (control API: tests/twin/README.md)
  its files        {twin.store_url}
  AWS              {stack.cloud.endpoint}   (region eu-central-1, access key and secret: test)
  logs             make logs          transfers   make status          the sweeper, now   make sweep
  one transfer     make explain TRANSFER=id

[bold]A migration of your own[/], by the twin:
{migrations}

[bold]An event of your own[/], straight to the app (a token is good for some minutes):
{events}
""",
        soft_wrap=True,
        markup=True,
    )


def _sites(app: AppIdentity) -> list[str]:
    return [site for site, there in ((SITE, app.key), (FORGE_SITE, app.forge_app)) if there]


def example_event(twin: Twin, name: str) -> tuple[str, dict]:
    """An event that the platform might send about a site, and where to."""
    site = next(site for site in twin.get("/control/sites") if site["site"] == name)
    if "installation_id" in site:
        return FORGE_EVENTS, {
            "eventType": "avi:ecosystem.migration:triggered:listener",
            "transferId": "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1002",
            "migrationDetails": {
                "migrationId": "9b4f1c66-3d7b-4b0e-a3ba-64a4ce8f2002",
                "migrationScopeId": "c2f6b0aa-20d2-3b8e-9f5b-18e9a7b63002",
                "name": "An event of my own",
                "createdAt": int(time.time() * 1000),
                "cloudUrl": site["site_url"],
            },
        }
    return CONNECT_EVENTS, {
        "eventType": "listener-triggered",
        "cloudAppKey": site["app_key"],
        "transferId": "0b9d6b52-5f0e-4c3a-9a53-3f1d7a1c1001",
        "messageId": "5d4a7f5e-8c36-4c39-8d57-0f6a2f2b0001",
        "migrationDetails": {
            "migrationId": "9b4f1c66-3d7b-4b0e-a3ba-64a4ce8f2001",
            "migrationScopeId": "c2f6b0aa-20d2-3b8e-9f5b-18e9a7b63001",
            "name": "An event of my own",
            "createdAt": int(time.time() * 1000),
            "jiraClientKey": site["client_key"],
            "confluenceClientKey": "unknown",
            "cloudUrl": site["base_url"],
        },
    }
