"""Deploying infra/template.yaml to a local cloud, and talking to what came out."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .cloud import Cloud, new_secret_key
from .settings import HOST, TARGET, TEMPLATE, Problem

FUNCTIONS = ("intake", "processor", "sweeper")
CODE_BUCKET = "landfall-code"

# What the template's clocks are on this machine: short, so that a crash costs seconds. The template states the inequality:
# visibility timeout >= processor timeout, and above clocks.lease of landfall.toml.
LOCAL_PARAMETERS = {
    "ProcessorTimeout": "10",
    "EventsVisibilityTimeout": "12",
    "ImportsVisibilityTimeout": "12",
    # On a few cores more workers at once would only wait for each other, and run out of their time doing so.
    "Workers": "small",
    "LogRetentionDays": "1",
    "DeletionProtection": "false",
    # One test deploys with KMS; everything else needs no key but its own.
    "SealWith": "secret-key",
}

_DEPLOY_SECONDS = 120


def architecture() -> str:
    """This machine's instruction set in AWS's words: the local cloud runs the binaries as they are."""
    machine = platform.machine().lower()
    return "arm64" if machine in ("arm64", "aarch64") else "x86_64"


def binary(name: str) -> Path:
    """Where `cargo build --profile local` leaves a program."""
    return TARGET / "local" / f"landfall-{name}"


def package(program: bytes, config: bytes) -> bytes:
    """A function's zip: the program as `bootstrap`, executable, and landfall.toml beside it. Same input, same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content, mode in (("bootstrap", program, 0o755), ("landfall.toml", config, 0o644)):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


class Stack:
    """One deployed copy of the template."""

    def __init__(self, cloud: Cloud, name: str):
        self.cloud = cloud
        self.name = name
        self.outputs: dict[str, str] = {}
        self.base_url = ""

    @classmethod
    def attach(cls, cloud: Cloud, name: str) -> Stack:
        """The stack that another process deployed."""
        stack = cls(cloud, name)
        stack._read_outputs()
        return stack

    def deploy(
        self,
        config: bytes,
        *,
        programs: dict[str, bytes] | None = None,
        parameters: dict[str, str] | None = None,
    ) -> None:
        """Creates the stack from the template as it is, then updates it with its own URL, as one does on AWS."""
        programs = programs or {name: binary(name).read_bytes() for name in FUNCTIONS}
        values = LOCAL_PARAMETERS | {
            "CodeBucket": CODE_BUCKET,
            "CodePrefix": self._upload(programs, config),
            "Architecture": architecture(),
            "SecretKey": new_secret_key(),
        }
        values |= parameters or {}
        self._apply("create_stack", values)
        self._read_outputs()
        self._apply("update_stack", values | {"AppBaseUrl": self.base_url})
        self._read_outputs()

    def _upload(self, programs: dict[str, bytes], config: bytes) -> str:
        self.cloud.make_bucket(CODE_BUCKET)
        storage = self.cloud.client("s3")
        zips = {name: package(program, config) for name, program in programs.items()}
        digest = hashlib.sha256(b"".join(zips.values())).hexdigest()[:16]
        for name, content in zips.items():
            storage.put_object(Bucket=CODE_BUCKET, Key=f"{digest}/{name}.zip", Body=content)
        return digest

    def _apply(self, operation: str, values: dict[str, str]) -> None:
        formation = self.cloud.client("cloudformation")
        getattr(formation, operation)(
            StackName=self.name,
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        deadline = time.monotonic() + _DEPLOY_SECONDS
        while True:
            stack = formation.describe_stacks(StackName=self.name)["Stacks"][0]
            status = stack["StackStatus"]
            if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
                return
            if not status.endswith("_IN_PROGRESS") or time.monotonic() > deadline:
                raise Problem(f"the stack ended {status}: {self._failures(formation) or stack.get('StackStatusReason', '')}")
            time.sleep(0.05)

    def _failures(self, formation) -> str:
        events = formation.describe_stack_events(StackName=self.name)["StackEvents"]
        return "; ".join(
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in events
            if event["ResourceStatus"].endswith("_FAILED")
        )

    def _read_outputs(self) -> None:
        stack = self.cloud.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
        # https://<id>.lambda-url.<region>.on.aws/ resolves nowhere here. MiniStack serves the same function by path, and that
        # is a base URL with a path of its own, which the signature check has to cope with anyway.
        identifier = self.outputs["FunctionUrl"].split("://", 1)[1].split(".", 1)[0]
        self.base_url = f"http://{HOST}:{self.cloud.port}/_aws/lambda-url/{identifier}"

    def sweep(self) -> dict:
        """Runs the sweeper now and returns its answer."""
        return self._ask_sweeper({"kind": "sweep"})

    def explain(self, tenant: str, transfer: str) -> dict:
        """How a transfer does and what happened to it: `verdict`, `health` and `timeline`."""
        return self._ask_sweeper({"kind": "explain", "tenant": tenant, "transfer": transfer})

    def receipt(self, tenant: str, transfer: str) -> dict | None:
        """What became of a transfer, as flattened JWS; none of one that was never seen."""
        return self._ask_sweeper({"kind": "receipt", "tenant": tenant, "transfer": transfer})

    def exceptions(self, tenant: str, transfer: str) -> Iterator[str]:
        """The records of a transfer that did not arrive, all of them, a JSON object each."""
        request = {"kind": "exceptions", "tenant": tenant, "transfer": transfer}
        while True:
            page = self._ask_sweeper(request)
            yield from page["lines"]
            if page["next"] is None:
                return
            request["after"] = page["next"]

    def repeat_second_phase(self, tenant: str, transfer: str) -> str | None:
        """Imports once more what a staged transfer has stored; the phase that has begun, if one has."""
        return self._ask_sweeper({"kind": "repeat_second_phase", "tenant": tenant, "transfer": transfer})["begun"]

    def _ask_sweeper(self, request: dict) -> dict:
        answer = self.cloud.client("lambda").invoke(
            FunctionName=self.outputs["SweeperFunctionName"], Payload=json.dumps(request).encode()
        )
        payload = answer["Payload"].read()
        if answer.get("FunctionError"):
            raise Problem(f"the sweeper failed: {payload.decode(errors='replace')}")
        return json.loads(payload or b"null")
