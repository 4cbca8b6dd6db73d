"""What the end-to-end tests have in common: the app on its stack, seen from all sides."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace

import psutil

from landfall_local import logs, processes
from landfall_local.cloud import Cloud
from landfall_local.stack import Stack
from landfall_local.token import sign
from landfall_local.tracking import Tracking, Transfer
from landfall_local.twin import SWITCHES, Twin

APP_KEY = "com.example.vault.cloud"
FORGE_APP = "ari:cloud:ecosystem::app/6f0d4a52-93b1-4d4e-8c2f-5a7c1e9b0001"

# What stays open on the platform's side.
ACTIVE = ("READY", "IN_PROGRESS", "CANCELLATION_REQUESTED")

# The sweeper runs when a test says so, not when a minute happens to end.
_NO_SCHEDULE = {"SweepSchedule": "rate(30 days)"}

_MAPPINGS = """
[[imports]]
label = "*"
natural_key = "/id"

[[imports.mappings]]
pointer = "/project"
namespace = "jira/classic:project"

[[imports.mappings]]
pointer = "/author"
namespace = "identity:user"
key_prefix = "jira.userkey/"
on_miss = "hold"
"""


@dataclass(frozen=True)
class Declaration:
    """A landfall.toml, scaled so that a day is some seconds."""

    clocks: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    connect: dict[str, str] = field(default_factory=dict)
    # The twin's Forge app as well.
    forge: bool = False
    # When a message may be answered SUCCESS; without it, when its file is applied.
    acknowledge: str | None = None
    quiet_period: str = "3s"
    # Without one it is the default, or export_silence where that is shorter.
    no_file_period: str | None = None
    sink: str = 'kind = "dynamodb"'
    imports: str = _MAPPINGS

    _CLOCKS = {
        "slice": "2s",
        "lease": "5s",
        "tenant_cache": "1s",
        "progress_interval": "500ms",
        "waiting_report_interval": "2s",
        "reconcile_interval": "2s",
        "message_grace": "2s",
        "hold_again_after": "1s",
        # Far away: a test that is about one of these brings it near.
        "export_silence": "5m",
        "work_stale_after": "5m",
        "hard_deadline": "1h",
        "cancel_settle_by": "20s",
        "listener_error_drain": "1s",
        "settle_confirm_after": "1s",
        "settle_retry_first": "200ms",
        "settle_retry_max": "1s",
    }

    def text(self, twin: Twin) -> str:
        """The file."""
        clocks = self._CLOCKS | self.clocks
        lines = ["version = 1", "[app]", f'key = "{APP_KEY}"', "[connect]"]
        lines += [f'install_key_server = "{twin.get("/control/health")["install_key_server"]}"', 'tenant_hosts = ["127.0.0.1"]']
        lines += [f'{key} = "{value}"' for key, value in self.connect.items()]
        lines += self._forge(twin) if self.forge else []
        lines += [f'acknowledge = "{self.acknowledge}"'] if self.acknowledge else []
        lines += ["[downloads]", 'hosts = ["127.0.0.1"]', "[completeness]", f'quiet_period = "{self.quiet_period}"']
        lines += [f'no_file_period = "{self.no_file_period}"'] if self.no_file_period else []
        lines += ["[clocks]"]
        lines += [f'{key} = "{value}"' for key, value in clocks.items()]
        lines += ["[limits]", *(f"{key} = {value}" for key, value in self.limits.items()), self.imports, "[sink]", self.sink]
        return "\n".join(lines) + "\n"

    @staticmethod
    def _forge(twin: Twin) -> list[str]:
        health = twin.get("/control/health")
        named = {"app": health["forge_app"], "key_set": health["forge_key_set"], "api": health["forge_api"]}
        return ["[forge]", *(f'{key} = "{value}"' for key, value in named.items()), 'api_hosts = ["127.0.0.1"]']

    def with_clocks(self, **clocks: str) -> Declaration:
        """The same with other clocks."""
        return replace(self, clocks=self.clocks | clocks)


class World:
    """The cloud, the twin, and the stacks."""

    def __init__(self, cloud: Cloud, twin: Twin):
        self.cloud = cloud
        self.twin = CalmTwin(twin)
        self.stacks: dict[str, Stack] = {}
        self.secrets: set[str] = set()
        # Client keys of all tests' tenants, by site.
        self.tenants: dict[str, str] = {}

    def stack(self, declaration: Declaration, parameters: dict[str, str] | None = None) -> Stack:
        """A deployed stack; equal wishes share one."""
        text = declaration.text(self.twin)
        wanted = _NO_SCHEDULE | (parameters or {})
        name = "t" + hashlib.sha256(json.dumps([text, wanted], sort_keys=True).encode()).hexdigest()[:10]
        if name not in self.stacks:
            stack = Stack(self.cloud, name)
            stack.deploy(text.encode(), parameters=wanted)
            self.stacks[name] = stack
        return self.stacks[name]

    def app(self, test: str, declaration: Declaration, parameters: dict[str, str] | None = None) -> App:
        """The app on a stack, installed on a site that only this test uses."""
        site = re.sub(r"[^a-z0-9]+", "-", test.lower()).strip("-")[:40] + "-" + hashlib.sha256(test.encode()).hexdigest()[:6]
        app = (ForgeApp if declaration.forge else App)(self, self.stack(declaration, parameters), site)
        app.install()
        return app


class CalmTwin(Twin):
    """A twin that can be put back to its defaults."""

    def __init__(self, twin: Twin):
        self.__dict__.update(twin.__dict__)

    def calm(self) -> None:
        """No faults, default switches, no mappings of a test's own, a clock that runs as usual; and quick retries, as time here is short."""
        self.call("DELETE", "/control/faults")
        self.call("DELETE", "/control/switches")
        self.call("DELETE", "/control/quotas")
        # Keys that a test gave a mapping had none before; the next test's records may have the same.
        for namespace, values in self.get("/control/mappings")["values"].items():
            if values:
                self.call("PUT", "/control/mappings", {"namespace": namespace, "holes": sorted(values)})
        self.switch(retry_first_ms=200, retry_max_ms=1000, cancel_allowed_after_ms=0, **SWITCHES)


class App:
    """Landfall on one stack, installed on one site of the twin."""

    def __init__(self, world: World, stack: Stack, site: str):
        self.world = world
        self.twin = world.twin
        self.stack = stack
        self.site = site
        self.tracking = Tracking(stack)
        self.installation: dict = {}

    # -- the platform's side

    def install(self) -> dict:
        """Installs the app on the site, or again with a new secret."""
        self.installation = self.twin.install(self.site, self.stack.base_url)
        self.world.secrets.add(self.installation["shared_secret"])
        self.world.tenants[self.site] = self.tenant
        return self.installation

    @property
    def tenant(self) -> str:
        """The tenant: its client key."""
        return self.installation["client_key"]

    def migrate(self, *files: dict, **plan) -> dict:
        """Starts a migration of these files."""
        return self.twin.migrate(self.site, list(files), name=f"canary-plan {self.site}", **plan)

    def platform(self, identifier: str) -> dict:
        """The transfer as the platform sees it."""
        return self.twin.transfer(identifier)

    def settled(self, identifier: str, within: float = 60, sweeping: float | None = 1.0) -> dict:
        """Waits until the platform has a verdict, sweeping every `sweeping` seconds meanwhile."""
        deadline = time.monotonic() + within
        swept = time.monotonic()
        while True:
            platform = self.platform(identifier)
            if platform["state"] not in ACTIVE:
                return platform
            now = time.monotonic()
            if now > deadline:
                raise AssertionError(f"not settled within {within} s:\n{self.story(identifier)}")
            if sweeping is not None and now - swept >= sweeping:
                self.sweep()
                swept = time.monotonic()
            time.sleep(0.1)

    def succeeded(self, identifier: str, **options) -> Transfer:
        """Waits for SUCCESS, and returns the transfer as we track it, closed and with balanced records."""
        platform = self.settled(identifier, **options)
        assert platform["state"] == "SUCCESS", self.story(identifier)
        return self.closed(identifier)

    def failed(self, identifier: str, **options) -> tuple[Transfer, str]:
        """Waits for FAILED, and returns the transfer as we track it, and what the admin reads."""
        platform = self.settled(identifier, **options)
        assert platform["state"] == "FAILED", self.story(identifier)
        return self.closed(identifier), platform["message"]

    def closed(self, identifier: str, within: float = 15) -> Transfer:
        """Waits until we know ourselves that the transfer is over."""

        def look():
            tracked = self.tracked(identifier)
            return tracked if tracked and tracked.phase == "SETTLED" else self.sweep() and None

        tracked = self.wait(look, within, lambda: self.story(identifier), 0.3)
        assert tracked.balanced, tracked.counts
        return tracked

    def tracked(self, identifier: str) -> Transfer | None:
        """The transfer as we track it."""
        return self.tracking.transfer(self.tenant, identifier)

    def settlements(self, identifier: str) -> int:
        """How often the platform took a final status from the app."""
        return self.platform(identifier)["accepted_settlements"]

    def finals(self, identifier: str) -> set[str]:
        """Every final status that the app ever sent."""
        calls = self.platform(identifier)["progress"]
        return {call["status"] for call in calls if call["status"] not in (None, "IN_PROGRESS")}

    def quiet(self, identifier: str, still: float = 2.0, within: float = 20) -> dict:
        """Waits until a transfer's row has not changed for `still` seconds, and returns it: late events may still be on their way."""
        deadline = time.monotonic() + within
        row, since = self.tracked(identifier).row, time.monotonic()
        while time.monotonic() - since < still:
            assert time.monotonic() < deadline, f"the row of {identifier} never comes to rest"
            time.sleep(0.2)
            if (now := self.tracked(identifier).row) != row:
                row, since = now, time.monotonic()
        return row

    # -- requests of our own

    def event(self, event_type: str = "listener-triggered", **fields) -> dict:
        """An event's body, as the platform makes it; a field that is None is left out."""
        number = hashlib.sha256(f"{self.site}{time.monotonic_ns()}".encode()).hexdigest()
        body = {
            "eventType": event_type,
            "cloudAppKey": APP_KEY,
            "transferId": _uuid(number[:32]),
            "messageId": _uuid(number[32:]),
            "migrationDetails": {
                "migrationId": _uuid(number[8:40]),
                "migrationScopeId": _uuid(number[16:48]),
                "name": f"canary-plan {self.site}",
                "createdAt": int(time.time() * 1000),
                "jiraClientKey": self.tenant,
                "confluenceClientKey": "unknown",
                "cloudUrl": "https://example-site.atlassian.net",
            },
        } | fields
        return {name: value for name, value in body.items() if value is not None}

    def post(self, body, *, path: str = "/connect/events", method: str = "POST", token: str | None = None, signed: bool = True) -> Answer:
        """A request straight to the function URL, signed by our own reading of the protocol."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        if signed:
            token = token or sign(self.installation["shared_secret"], self.tenant, method, path)
            headers["authorization"] = f"JWT {token}"
        return self.send(path, content, method=method, headers=headers)

    def send(self, path: str, content: bytes, *, headers: dict[str, str], method: str = "POST") -> Answer:
        """A request straight to the function URL."""
        request = urllib.request.Request(self.stack.base_url + path, data=content, method=method, headers=headers)
        began = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return Answer(answer.status, answer.read().decode(), time.monotonic() - began)
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(errors="replace"), time.monotonic() - began)

    def twin_event(self, body=None, **request) -> Answer:
        """A request as the twin sends it, with whatever is wrong with its token."""
        wish = {"site": self.site} | ({"body": body} if body is not None else {}) | request
        answer = self.twin.post("/control/events", wish)
        assert not answer.get("error"), answer
        return Answer(answer["status"], answer["body"], answer["elapsed_ms"] / 1000)

    # -- our own side

    def sweep(self) -> dict:
        """The sweeper, now."""
        return self.stack.sweep()

    def explained(self, identifier: str) -> dict:
        """How the transfer does and what happened to it, as support is told."""
        return self.stack.explain(self.tenant, identifier)

    def rows(self) -> list[dict]:
        """Everything that is tracked, in a fixed order, except for other tests' tenants: their work may not have ended yet."""
        others = [tenant for site, tenant in self.world.tenants.items() if site != self.site]
        rows = [row for row in self.tracking.everything() if not any(tenant in row["pk"] for tenant in others)]
        return sorted(rows, key=lambda row: (row["pk"], row["sk"]))

    def tenant_records(self) -> dict[str, dict]:
        """The imported records of this test's tenant, by their place in the table."""
        return {f"{row['pk']} {row['sk']}": row for row in self.tracking.records() if row["tenant"] == self.tenant}

    def records_by_key(self) -> dict[tuple[str, str], str]:
        """Content by label and key: what two runs are compared by. A key that lies there twice would be lost here, so it is refused."""
        found: dict[tuple[str, str], str] = {}
        for row in self.tenant_records().values():
            place = (row["label"], row["key"])
            assert place not in found, f"{place} was imported twice"
            found[place] = row["record"]
        return found

    def log(self, function: str) -> list[str]:
        """The lines that a function logged."""
        return [event["message"].rstrip() for event in logs.events(self.stack, f"/landfall/{self.stack.name}/{function}")]

    def workers(self, function: str = "processor") -> list[psutil.Process]:
        """The running processes of a function."""
        return processes.functions_in(self.world.cloud.directory, f"{self.stack.name}-{function}")

    def queue(self, name: str) -> str:
        """URL of a queue, by its name in the template."""
        return self.stack.outputs[f"{name}QueueUrl"]

    def waiting(self, name: str) -> int:
        """Messages of a queue, visible or not."""
        held = self.world.cloud.client("sqs").get_queue_attributes(QueueUrl=self.queue(name), AttributeNames=["All"])["Attributes"]
        return sum(int(held[f"ApproximateNumberOfMessages{kind}"]) for kind in ("", "NotVisible", "Delayed"))

    @contextlib.contextmanager
    def mappings_off(self):
        """No message reaches the processor meanwhile."""
        client = self.world.cloud.client("lambda")
        name = self.stack.outputs["ProcessorFunctionName"]
        mappings = [mapping["UUID"] for mapping in client.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]]
        for mapping in mappings:
            client.update_event_source_mapping(UUID=mapping, Enabled=False)
        # A batch that the poller already holds is still delivered.
        time.sleep(0.3)
        try:
            yield
        finally:
            for mapping in mappings:
                client.update_event_source_mapping(UUID=mapping, Enabled=True)

    @staticmethod
    def wait(condition, seconds: float, what, interval: float = 0.1):
        """Waits for something true; `what` says what was waited for."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
            time.sleep(interval)

    def story(self, identifier: str) -> str:
        """All that is known about a transfer, for whoever reads a failed test."""
        tracked = self.tracked(identifier)
        lines = [f"platform: {json.dumps({k: v for k, v in self.platform(identifier).items() if k not in ('events', 'file_list')})[:3000]}"]
        if tracked is None:
            lines.append("tracked: not at all")
        else:
            lines.append(f"tracked: {tracked.phase} {tracked.verdict} {tracked.message!r} {tracked.counts}")
            lines += [f"  {line['what']}" for line in self.explained(identifier)["timeline"]]
            for row in self.tracking.files(self.tenant, identifier):
                lines.append(f"  file {row.get('label')} {row['state']} attempts={row['attempts']} {row.get('counts')}")
        for function in ("processor", "sweeper", "intake"):
            lines += [f"{function}: {line}" for line in self.log(function) if '"WARN"' in line or '"ERROR"' in line][-8:]
        return "\n".join(lines)


class ForgeApp(App):
    """Landfall as the remote of the twin's Forge app."""

    def install(self) -> dict:
        """Installs the Forge app on the site; the app learns of it with the first call."""
        self.installation = self.twin.install_forge(self.site, self.stack.base_url)
        self.world.tenants[self.site] = self.tenant
        return self.installation

    @property
    def tenant(self) -> str:
        """The tenant: the installation's ARI."""
        return self.installation["installation_id"]

    def migrate(self, *files: dict, **plan) -> dict:
        """Starts a migration on Forge."""
        return super().migrate(*files, flavour="forge", **plan)

    def tokens(self, **wish) -> dict:
        """Both tokens of a call, made by the twin; every system token is a secret that may turn up nowhere."""
        made = self.twin.post("/control/forge/token", {"site": self.site} | wish)
        self.world.secrets.add(made["system_token"])
        return made

    def call(self, path: str, body, tokens: dict | None = None) -> Answer:
        """A request as Forge sends it, straight to the function URL; `tokens` are those of `tokens`, perhaps without one of them."""
        tokens = self.tokens() if tokens is None else tokens
        headers = {"content-type": "application/json"}
        headers |= {"authorization": tokens["authorization"]} if "authorization" in tokens else {}
        headers |= {"x-forge-oauth-system": tokens["system_token"]} if "system_token" in tokens else {}
        return self.send(path, json.dumps(body).encode(), headers=headers)

    def forge_event(self, name: str = "triggered:listener", **fields) -> dict:
        """An event's body, as Forge makes it; a field that is None is left out."""
        number = hashlib.sha256(f"{self.site}{time.monotonic_ns()}".encode()).hexdigest()
        body = {
            "eventType": f"avi:ecosystem.migration:{name}",
            "transferId": _uuid(number[:32]),
            "migrationDetails": {
                "migrationId": _uuid(number[8:40]),
                "migrationScopeId": _uuid(number[16:48]),
                "name": f"canary-plan {self.site}",
                "createdAt": int(time.time() * 1000),
                "cloudUrl": "https://example-site.atlassian.net",
            },
        } | fields
        return {name: value for name, value in body.items() if value is not None}

    def messages(self, identifier: str) -> list[dict]:
        """The messages of a transfer's files, as the platform sees them, in the order of their uploads."""
        return self.platform(identifier)["forge"]["messages"]

    def logged(self, identifier: str) -> list[str]:
        """What the app wrote into the migration's log, for the admin."""
        return [line["message"] for line in self.platform(identifier)["forge"]["logs"]]

    def told(self, identifier: str) -> list[str]:
        """What the timeline says, as support reads it."""
        return [line["what"] for line in self.explained(identifier)["timeline"]]


def changes(before: dict, after: dict) -> dict:
    """What differs between two readings of a row, with the state inside it spelled out."""
    found = {}
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if name == "state" and old != new:
            found |= {f"state.{key}": change for key, change in changes(json.loads(old)["transfer"], json.loads(new)["transfer"]).items()}
        elif old != new:
            found[name] = (old, new)
    return found


@dataclass(frozen=True)
class Answer:
    """What a request met."""

    status: int
    body: str
    seconds: float


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"


class Killer:
    """Kills the processor's workers, as a crash of the machine would, while the block runs."""

    def __init__(self, app: App, when, limit: int = 1, interval: float = 0.05):
        self._app = app
        self._when = when
        self._limit = limit
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.killed: list[int] = []

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            if len(self.killed) >= self._limit or not self._when():
                continue
            for process in self._app.workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    self.killed.append(process.pid)
