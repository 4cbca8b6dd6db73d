"""Where things are, and what may be set from outside."""

from __future__ import annotations

import base64
import os
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
TEMPLATE = REPOSITORY / "infra" / "template.yaml"
STATE = REPOSITORY / ".local"
DEFAULT_CONFIG = REPOSITORY / "tests" / "local" / "landfall.toml"
# Cargo's own variable moves the target folder for us as well.
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))

REGION = "eu-central-1"
# The bucket of the s3 sink, or of staged records, where SINK_BUCKET names no other.
LOCAL_BUCKET = "landfall-local"
HOST = "127.0.0.1"


class Problem(Exception):
    """Something the user can put right; its text is all that is shown."""


@dataclass(frozen=True)
class Port:
    """A port and the variable that moves it."""

    variable: str
    default: int

    def number(self) -> int:
        """The port in use; 0 is refused because the URLs must stay the same over a re-deployment."""
        text = os.environ.get(self.variable) or str(self.default)
        if not text.isdigit() or not 1 <= int(text) <= 65535:
            raise Problem(f"{self.variable}={text} is not a port: give a number from 1 to 65535")
        return int(text)


CLOUD_PORT = Port("CLOUD_PORT", 4566)
TWIN_PORT = Port("TWIN_PORT", 9100)
STORE_PORT = Port("STORE_PORT", 9101)


def config_path() -> Path:
    """The landfall.toml that goes into the functions' zips: CONFIG, or the one made for local use."""
    given = os.environ.get("CONFIG")
    if not given:
        return DEFAULT_CONFIG
    path = Path(given).expanduser()
    if not path.is_file():
        raise Problem(f"CONFIG={given}: there is no such file")
    return path.resolve()


def config_text() -> str:
    """What goes into the zips. The default file names the twin's default port and follows it when it is moved."""
    path = config_path()
    text = path.read_text()
    if path == DEFAULT_CONFIG:
        text = text.replace(f"http://{HOST}:{TWIN_PORT.default}/", f"http://{HOST}:{TWIN_PORT.number()}/")
    return text


def sink_parameters(text: str) -> dict[str, str]:
    """The template's parameters that a landfall.toml needs for its sink: SINK_SECRET and SINK_BUCKET, or what will do here.

    A file that can't be read needs nothing: the functions say better what is wrong with it.
    """
    try:
        declared = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
    section = lambda name: found if isinstance(found := declared.get(name), dict) else {}  # noqa: E731
    kind, staged = section("sink").get("kind"), section("forge").get("acknowledge") == "staged"
    needed = {}
    if kind == "http":
        needed["SinkSecret"] = os.environ.get("SINK_SECRET") or "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    if kind == "s3" or staged:
        needed["SinkBucket"] = os.environ.get("SINK_BUCKET") or LOCAL_BUCKET
    return needed
