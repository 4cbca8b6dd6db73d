"""The body of an `app-data-uploaded` webhook."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from aws_lambda_powertools.utilities.parser import BaseModel, Field, ValidationError
from pydantic import AfterValidator, BeforeValidator

LABEL_MAX = 1024

_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-_.:~]{0,127}")


class NotJson(Exception):
    """The body is not JSON."""


class InvalidUpload(Exception):
    """The body is JSON, and no upload that can be taken."""


def is_identity(text: str) -> bool:
    """Whether a text may become part of a key and of a URL's path."""
    return _IDENTITY.fullmatch(text) is not None


def _identity(text: str) -> str:
    if not is_identity(text):
        raise ValueError("not usable as an identity")
    return text


Identity = Annotated[str, AfterValidator(_identity)]
# The platform leaves out what there is none of, or sends an empty text.
OptionalIdentity = Annotated[Identity | None, BeforeValidator(lambda value: value or None)]
Label = Annotated[str | None, BeforeValidator(lambda value: value[:LABEL_MAX] if isinstance(value, str) else None)]


class Upload(BaseModel):
    event_type: Literal["app-data-uploaded"] = Field(alias="eventType")
    transfer_id: Identity = Field(alias="transferId")
    original_transfer_id: OptionalIdentity = Field(alias="originalTransferId", default=None)
    message_id: OptionalIdentity = Field(alias="messageId", default=None)
    s3_key: Identity = Field(alias="s3Key")
    label: Label = None
    # The whole event as JSON, but for the plan's name.
    json_text: str = Field(alias="json text")


def read_upload(body: str) -> Upload:
    try:
        event: Any = json.loads(body)
    except ValueError:
        raise NotJson("the body is not JSON") from None
    if not isinstance(event, dict):
        raise InvalidUpload("the body is no object")
    details = event.get("migrationDetails")
    if isinstance(details, dict):
        # The plan's name may hold personal data, and nobody needs it.
        details.pop("name", None)
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    try:
        return Upload.model_validate(event | {"json text": text})
    except ValidationError as error:
        fields = sorted({str(problem["loc"][0]) for problem in error.errors(include_url=False, include_input=False)})
        raise InvalidUpload(f"unusable or missing: {', '.join(fields)}") from None
