"""The twin: its process, and its control API (tests/twin/README.md)."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from . import processes
from .settings import HOST, Problem
from .stack import binary


# Readings without which an app in real time can't follow: tokens of Forge live by the machine's clock, also when the twin's is moved.
SWITCHES = {"forge_token_clock": "wall"}

# Where intake takes Connect's events.
CONNECT_EVENTS = "/connect/events"
# Where intake takes what Forge sends (contracts/forge/manifest.yml).
FORGE_EVENTS = "/forge/events"
FORGE_TOKEN = "/forge/token"


class Refused(Exception):
    """The twin answered with an error status."""

    def __init__(self, status: int, error: str):
        super().__init__(f"{status}: {error}")
        self.status = status
        self.error = error


@dataclass(frozen=True)
class AppIdentity:
    """Who the app is: the key of its Connect descriptor, the ARI of its Forge app, or both; the twin has defaults."""

    key: str | None = None
    forge_app: str | None = None


class Twin:
    """A running twin."""

    def __init__(self, directory: Path, port: int, store_port: int):
        self.directory = directory
        self.port = port
        self.store_port = store_port
        self.url = f"http://{HOST}:{port}"
        self.store_url = f"http://{HOST}:{store_port}"
        self.log = directory / "twin.log"

    def start(self, app: AppIdentity, seed: int = 1) -> None:
        """Starts the twin and waits until it answers."""
        process = processes.start(
            [
                *(str(binary("twin")), "serve"),
                *("--listen", f"{HOST}:{self.port}", "--store-listen", f"{HOST}:{self.store_port}"),
                *("--seed", str(seed)),
                *(("--app-key", app.key) if app.key else ()),
                *(("--forge-app", app.forge_app) if app.forge_app else ()),
            ],
            self.directory,
            self.log,
            {"PATH": "/usr/bin:/bin", "RUST_LOG": "info"},
        )
        self.process = process

        def ready() -> bool:
            if process.poll() is not None:
                raise Problem(f"the twin ended with code {process.returncode}; its log is {self.log}\n{self.log_tail()}")
            try:
                return self.get("/control/health")["status"] == "ok"
            except OSError:
                return False

        processes.wait_until(ready, 20, "the twin did not get ready")
        self.switch(**SWITCHES)

    def log_tail(self) -> str:
        """The end of the twin's log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        except OSError:
            return ""

    def call(self, method: str, path: str, body=None, timeout: float = 70):
        """One call of the control API; an answer that is no success raises Refused."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={} if body is None else {"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            content = error.read()
            try:
                message = json.loads(content)["error"]
            except (ValueError, KeyError, TypeError):
                message = content.decode(errors="replace")
            raise Refused(error.code, message) from None
        return json.loads(content) if content else None

    def get(self, path: str, **query):
        """GET with a query."""
        query = {name: value for name, value in query.items() if value is not None}
        return self.call("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def post(self, path: str, body=None):
        """POST."""
        return self.call("POST", path, {} if body is None else body)

    def install(self, site: str, app_base_url: str, product: str = "jira") -> dict:
        """Installs the app on a site; the app has to accept the installation."""
        answer = self.post("/control/install", {"site": site, "product": product, "app_base_url": app_base_url})
        if not answer["accepted"]:
            raise Problem(f"the app did not accept the installation of {site}: {answer['status']} {answer['body']}")
        return answer["installation"]

    def install_forge(self, site: str, remote_base_url: str, product: str = "jira") -> dict:
        """Installs the Forge app on a site. No request goes out: the app learns of its tenant with the first call."""
        wish = {"site": site, "product": product, "remote_base_url": remote_base_url}
        return self.post("/control/forge/install", wish | {"events_path": FORGE_EVENTS, "refresh_path": FORGE_TOKEN})["installation"]

    def refresh_forge(self, site: str) -> dict:
        """What the schedule does: a call whose only use is the token that comes with it. Returns what the app answered."""
        return self.post("/control/forge/refresh", {"site": site})

    def migrate(self, site: str, files: list[dict], **plan) -> dict:
        """Starts a migration."""
        return self.post("/control/migrations", {"site": site, "files": files} | plan)

    def transfer(self, identifier: str) -> dict:
        """Everything about a transfer."""
        return self.get(f"/control/transfers/{identifier}")

    def rerun(self, identifier: str, **overrides) -> dict:
        """What the admin's re-run button does."""
        return self.post(f"/control/transfers/{identifier}/rerun", overrides)

    @staticmethod
    def tenant(installation: dict) -> str:
        """The tenant of an installation, as Landfall knows it: a client key on Connect, the installation's ARI on Forge."""
        return installation.get("installation_id") or installation["client_key"]

    def switch(self, **switches) -> dict:
        """Sets switches of the platform's readings."""
        return self.call("PATCH", "/control/switches", switches)

    def fault(self, **rule) -> None:
        """Adds a fault rule."""
        self.post("/control/faults", rule)

    def heal(self) -> None:
        """Removes all fault rules."""
        self.call("DELETE", "/control/faults")
