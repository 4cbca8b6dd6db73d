"""One local cloud: a MiniStack process on loopback, in a folder of its own."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import psutil
from botocore.config import Config

from . import processes
from .settings import HOST, REGION, Problem

# A slow machine needs a second or two; more means that it did not start at all.
_START_SECONDS = 60


class Cloud:
    """A MiniStack and what is known about it. Its folder holds everything: logs, unpacked functions, the state file."""

    def __init__(self, directory: Path, port: int):
        self.directory = directory
        self.port = port
        self.endpoint = f"http://{HOST}:{port}"
        self.log = directory / "ministack.log"

    def start(self) -> None:
        """Starts MiniStack and waits until it answers."""
        scratch = self.directory / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        process = processes.start(
            [sys.executable, "-m", "ministack"], self.directory, self.log, self._environment(scratch)
        )

        def ready() -> bool:
            if process.poll() is not None:
                raise Problem(f"MiniStack ended with code {process.returncode}; its log is {self.log}\n{self._log_tail()}")
            try:
                with urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=2) as answer:
                    return answer.status == 200
            except (urllib.error.URLError, OSError):
                return False

        processes.wait_until(ready, _START_SECONDS, "MiniStack did not get ready")

    def make_bucket(self, name: str) -> None:
        """Makes a bucket, unless there is one of the name."""
        storage = self.client("s3")
        if name not in (bucket["Name"] for bucket in storage.list_buckets()["Buckets"]):
            storage.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def _environment(self, scratch: Path) -> dict[str, str]:
        # The functions inherit MiniStack's environment, so it starts from nearly nothing: no proxy, no AWS profile and no
        # RUST_LOG of the user's shell reaches them.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "USER") if name in os.environ}
        return kept | {
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(self.port),
            "MINISTACK_HOST": HOST,
            "MINISTACK_REGION": REGION,
            # What MiniStack has here, its functions get: their SDKs find the local cloud without any change to the code.
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            # Each function calls AWS with its own role, and may do what the template grants it, and no more. We are root.
            "AUTH": "true",
            # The zips are unpacked below TMPDIR: inside our folder, so that a left-over function is known by its path.
            "TMPDIR": str(scratch),
            # No Docker: MiniStack would look for containers of its own and remove them.
            "DOCKER_HOST": "unix:///nonexistent",
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
        }

    def _log_tail(self) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        except OSError:
            return ""

    def client(self, service: str):
        """A boto3 client for this cloud; nothing of the user's AWS configuration is read."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 2}, connect_timeout=5, read_timeout=120, max_pool_connections=32),
        )


class Instance:
    """The folder of one local cloud and its state file: who made it, what runs in it, what was deployed."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.state_file = directory / "state.json"

    def read(self) -> dict | None:
        """The state that was last written, or nothing if there is none (or only half of it: a killed writer)."""
        try:
            return json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return None

    def write(self, state: dict) -> None:
        """Writes the state whole or not at all."""
        partial = self.state_file.with_suffix(".new")
        partial.write_text(json.dumps(state, indent=2) + "\n")
        partial.chmod(0o600)
        partial.replace(self.state_file)

    def in_use(self) -> str | None:
        """Why the folder can't be taken over, or nothing if what is in it is only left over."""
        state = self.read()
        running = processes.running_in(self.directory)
        if state is None or not running:
            return None
        supervisor = state.get("supervisor")
        if supervisor is None:
            return f"a local cloud is up at {state.get('endpoint')} (`make up`); `make down` ends it"
        if processes.alive(supervisor["pid"], supervisor["started"]):
            return f"`make {state.get('command')}` (process {supervisor['pid']}) is running in this checkout; end it with Ctrl-C first"
        return None

    def take(self, command: str, supervised: bool) -> None:
        """Clears the folder of what an earlier run left and makes it ours."""
        if reason := self.in_use():
            raise Problem(reason)
        processes.end_all_in(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        own = psutil.Process()
        self.write(
            {
                "command": command,
                "supervisor": {"pid": own.pid, "started": own.create_time()} if supervised else None,
            }
        )

    def update(self, **values) -> None:
        """Adds to the state file."""
        self.write((self.read() or {}) | values)

    def release(self) -> int:
        """Ends all that runs here and forgets it; the logs stay for whoever wants to read them."""
        ended = processes.end_all_in(self.directory)
        self.state_file.unlink(missing_ok=True)
        shutil.rmtree(self.directory / "tmp", ignore_errors=True)
        return ended


def new_secret_key() -> str:
    """A key for the template's SecretKey: base64 of 32 random bytes."""
    return base64.b64encode(secrets.token_bytes(32)).decode()

