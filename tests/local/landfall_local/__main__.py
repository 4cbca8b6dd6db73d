"""The commands behind the Makefile's targets."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import urllib.parse
from dataclasses import asdict

from . import bench, build, demo, explain, logs, processes, receipt, release, verify
from .cloud import Cloud, Instance
from .settings import CLOUD_PORT, STATE, STORE_PORT, TWIN_PORT, Problem, config_path, config_text, sink_parameters
from .stack import Stack
from .token import sign
from .tracking import Tracking
from .twin import CONNECT_EVENTS, FORGE_EVENTS, AppIdentity, Twin

STACK = "landfall"
INSTANCE = Instance(STATE / "cloud")
TWIN_DIRECTORY = STATE / "twin"


def main() -> int:
    """Runs one command; what the user can put right is one line, not a traceback."""
    parser = argparse.ArgumentParser(prog="landfall_local", description="The local cloud (see the Makefile).")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "demo", "up", "down", "status", "logs", "sweep", "twin"):
        commands.add_parser(name)
    commands.add_parser("token").add_argument("site")
    explained = commands.add_parser("explain")
    explained.add_argument("transfer")
    explained.add_argument("--site")
    receipted = commands.add_parser("receipt")
    receipted.add_argument("transfer")
    receipted.add_argument("--site")
    commands.add_parser("test").add_argument("--select")
    commands.add_parser("package").add_argument("--architecture", choices=sorted(release.TRIPLES))
    commands.add_parser("bench").add_argument("--only", action="append", choices=("functions", "hot-paths"), default=[])
    arguments = parser.parse_args()
    # Whoever ends us ends what we started as well: SIGTERM and a closed terminal take the same way out as Ctrl-C.
    # A background job begins with SIGINT ignored, and takes it nevertheless; nohup's ignored SIGHUP is meant as it is.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        return _run(arguments)
    except Problem as problem:
        print(f"{arguments.command}: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Following the logs has no other end.
        return 0 if arguments.command == "logs" else 130
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough.
        sys.stdout = None
        return 0


def _interrupt(number, _frame):
    raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "run" | "demo":
            return demonstrate(stay=arguments.command == "run")
        case "up":
            return up()
        case "down":
            return down()
        case "status":
            return status()
        case "logs":
            logs.follow(attach())
            return 0
        case "sweep":
            print(json.dumps(attach().sweep(), indent=2))
            return 0
        case "explain":
            return explain_transfer(arguments.transfer, arguments.site)
        case "receipt":
            return give_receipt(arguments.transfer, arguments.site)
        case "twin":
            return twin()
        case "token":
            return token(arguments.site)
        case "test":
            return verify.run(arguments.select)
        case "package":
            release.make(arguments.architecture)
            return 0
        case "bench":
            bench.run(arguments.only)
            return 0
    raise AssertionError(arguments.command)


def deploy(command: str, supervised: bool) -> Stack:
    """Takes over the folder, starts MiniStack and deploys the template."""
    if reason := INSTANCE.in_use():
        raise Problem(reason)
    # Before the port is looked at: what a killed run left would still hold it.
    INSTANCE.take(command, supervised)
    try:
        port = processes.require_free(CLOUD_PORT, command)
        cloud = Cloud(INSTANCE.directory, port)
        print(f"Starting the local cloud on {cloud.endpoint} and deploying infra/template.yaml", flush=True)
        cloud.start()
        stack = Stack(cloud, STACK)
        text = config_text()
        parameters = sink_parameters(text)
        if bucket := parameters.get("SinkBucket"):
            cloud.make_bucket(bucket)
        stack.deploy(text.encode(), parameters=parameters)
        INSTANCE.update(
            endpoint=cloud.endpoint,
            port=port,
            base_url=stack.base_url,
            app=asdict(demo.app_identity(config_path())),
            outputs=stack.outputs,
            parameters=parameters,
        )
        return stack
    except BaseException:
        INSTANCE.release()
        raise


def attach() -> Stack:
    """The stack that is up."""
    state = INSTANCE.read()
    if not state or "port" not in state or not processes.running_in(INSTANCE.directory):
        raise Problem("no local cloud is up here: make up (or make run) starts one")
    return Stack.attach(Cloud(INSTANCE.directory, state["port"]), STACK)


def up() -> int:
    """Deploys, and leaves it running."""
    config = config_path()
    if reason := INSTANCE.in_use():
        raise Problem(reason)
    build.build(*build.PROGRAMS)
    stack = deploy("up", supervised=False)
    print(
        f"\nThe app's base URL   {stack.base_url}\n"
        f"  lifecycle          {stack.base_url}/connect/installed, {stack.base_url}/connect/uninstalled\n"
        f"  webhook            {stack.base_url}/connect/events\n"
        f"  Forge remote       {stack.base_url}/forge/events, {stack.base_url}/forge/token\n"
        f"AWS endpoint         {stack.cloud.endpoint} (region eu-central-1, access key and secret: test)\n"
        f"Configuration        {config}\n" + _sink_lines(INSTANCE.read() or {}) +
        f"Names of all parts   {INSTANCE.state_file}\n\n"
        "make logs follows the functions, make sweep runs the sweeper now, make status looks, make down ends it."
    )
    return 0


def _sink_lines(state: dict) -> str:
    """What whoever receives the records has to know: this secret is one of the local cloud alone."""
    names = {"SinkSecret": "Sink's secret", "SinkBucket": "Bucket"}
    given = state.get("parameters", {})
    return "".join(f"{words:21}{given[name]}\n" for name, words in names.items() if name in given)


def down() -> int:
    """Ends what is up, or what a killed run left."""
    state = INSTANCE.read()
    if state and state.get("supervisor") and INSTANCE.in_use():
        raise Problem(INSTANCE.in_use() or "")
    ended = INSTANCE.release()
    print("The local cloud is down." if ended else "Nothing was up.")
    return 0


def status() -> int:
    """Shows what is up."""
    stack = attach()
    print(f"base URL  {stack.base_url}\nAWS       {stack.cloud.endpoint}")
    queues = stack.cloud.client("sqs")
    for name, url in stack.outputs.items():
        if name.endswith("QueueUrl"):
            held = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            waiting, working = held["ApproximateNumberOfMessages"], held["ApproximateNumberOfMessagesNotVisible"]
            print(f"{name.removesuffix('QueueUrl'):28} {waiting:>5} waiting, {working:>3} being worked on")
    for process in processes.running_in(INSTANCE.directory):
        print(f"process {process.pid:>7}  {process.memory_info().rss / 1e6:6.0f} MB  {process.name()}")
    demo.print_transfers(Tracking(stack), None)
    return 0


def twin() -> int:
    """Runs the twin in the foreground."""
    build.build(build.TWIN)
    processes.end_all_in(TWIN_DIRECTORY)
    platform = _new_twin("twin")
    # The app that is up, whatever CONFIG it was given; without one, the app of the configuration.
    known = (INSTANCE.read() or {}).get("app")
    app = AppIdentity(**known) if known else demo.app_identity(config_path())
    try:
        platform.start(app)
        print(f"The twin: {platform.url} (control API in tests/twin/README.md), files on {platform.store_url}. Ctrl-C ends it.")
        while platform.process.poll() is None:
            time.sleep(0.2)
        raise Problem(f"the twin ended with code {platform.process.returncode}; its log is {platform.log}\n{platform.log_tail()}")
    except KeyboardInterrupt:
        return 0
    finally:
        processes.end_all_in(TWIN_DIRECTORY)


def _new_twin(command: str) -> Twin:
    port, store_port = processes.require_free(TWIN_PORT, command), processes.require_free(STORE_PORT, command)
    TWIN_DIRECTORY.mkdir(parents=True, exist_ok=True)
    return Twin(TWIN_DIRECTORY, port, store_port)


def token(site: str) -> int:
    """Prints the header for one POST of an event: signed with the secret that the twin gave the app; on Forge by the twin itself."""
    stack = attach()
    installation = _installation(site)
    if "installation_id" in installation:
        path, life = FORGE_EVENTS, "five"
        print(f"Authorization: {_running_twin().post('/control/forge/token', {'site': site})['authorization']}")
    else:
        path, life = CONNECT_EVENTS, "three"
        print(f"Authorization: JWT {sign(installation['shared_secret'], installation['client_key'], 'POST', path)}")
    print(f"for {life} minutes, for POST {urllib.parse.urljoin(stack.base_url, '')}{path}", file=sys.stderr)
    return 0


def explain_transfer(wanted: str, site: str | None) -> int:
    """Prints how a transfer does and what happened to it."""
    if not wanted:
        raise Problem("which one? make explain TRANSFER=id; make status lists them")
    stack = attach()
    tenant = Twin.tenant(_installation(site)) if site else None
    transfer = explain.find(Tracking(stack), wanted, tenant)
    print(explain.words(stack.explain(transfer.tenant, transfer.identifier)))
    return 0


def give_receipt(wanted: str, site: str | None) -> int:
    """Shows what became of a transfer and its records, and writes it down; without an id, of the one that was seen last."""
    stack = attach()
    tenant = Twin.tenant(_installation(site)) if site else None
    tracking = Tracking(stack)
    if wanted:
        transfer = explain.find(tracking, wanted, tenant)
    else:
        seen = [transfer for transfer in tracking.transfers() if tenant in (None, transfer.tenant)]
        if not seen:
            raise Problem("no transfer was ever seen here; make run shows some")
        transfer = seen[-1]
    signed = stack.receipt(transfer.tenant, transfer.identifier)
    directory = STATE / "receipts" / transfer.identifier
    found = receipt.write(directory, signed, stack.exceptions(transfer.tenant, transfer.identifier))
    print(json.dumps(found, indent=2, ensure_ascii=False))
    _receipt, key = receipt.read(signed)
    where = os.path.relpath(directory)
    print(f"\nThe signature holds (Ed25519, public key {key}).")
    print(f"{where}/receipt.json is the signed receipt; exceptions.jsonl and exceptions.csv beside it are all records that did not arrive.")
    return 0


def _running_twin() -> Twin:
    return Twin(TWIN_DIRECTORY, TWIN_PORT.number(), STORE_PORT.number())


def _installation(site: str) -> dict:
    """The app's installation on a site of the twin; of two, the Connect app's."""
    platform = _running_twin()
    try:
        installations = platform.get("/control/sites")
    except OSError:
        raise Problem(f"no twin answers on {platform.url}: make run or make twin starts one") from None
    found = sorted((one for one in installations if one["site"] == site), key=lambda one: "installation_id" in one)
    if found:
        return found[0]
    raise Problem(f"the twin has no site {site}; it has {', '.join(i['site'] for i in installations) or 'none yet'}")


def demonstrate(stay: bool) -> int:
    """The main job, shown."""
    command = "run" if stay else "demo"
    if reason := INSTANCE.in_use():
        raise Problem(reason)
    # What a killed run left goes first, or its ports would look taken.
    processes.end_all_in(INSTANCE.directory)
    processes.end_all_in(TWIN_DIRECTORY)
    for port in (CLOUD_PORT, TWIN_PORT, STORE_PORT):
        processes.require_free(port, command)
    build.build(*build.PROGRAMS, build.TWIN)
    began = time.monotonic()
    stack = deploy(command, supervised=True)
    platform = _new_twin(command)
    try:
        app = demo.app_identity(config_path())
        platform.start(app)
        demo.run(stack, platform, app)
        print(f"The demo took {time.monotonic() - began:.0f} seconds, deployment included.")
        if not stay:
            return 0
        demo.explain(stack, platform, app)
        while platform.process.poll() is None:
            time.sleep(0.2)
        raise Problem(f"the twin ended with code {platform.process.returncode}; its log is {platform.log}")
    except KeyboardInterrupt:
        print("\nEnding the local cloud.", flush=True)
        return 0 if stay else 130
    finally:
        # A second Ctrl-C must not interrupt the cleaning up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        processes.end_all_in(TWIN_DIRECTORY)
        INSTANCE.release()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
