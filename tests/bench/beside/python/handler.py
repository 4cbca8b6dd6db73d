"""The warm path of Landfall's intake as a partner writes it by hand in Python: one `app-data-uploaded` webhook of Connect, stored as a row
and as a message before it is acknowledged. ../README.md says what is left out.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.data_classes import LambdaFunctionUrlEvent, event_source
from botocore.exceptions import BotoCoreError, ClientError

import storage
from authentication import Unauthorized, sender
from upload import InvalidUpload, NotJson, read_upload

BASE_PATH = urlsplit(os.environ.get("LANDFALL_APP_BASE_URL", "")).path.rstrip("/")
ROUTE = "/connect/events"

logger = Logger(service="intake")

# Many write one after the other. These two don't need each other, the platform waits for both, and Landfall makes them at once: so does
# this, with the threads that boto3 needs for it. It is the faster way as soon as a write takes longer than handing it to a thread.
writers = ThreadPoolExecutor(max_workers=2)

try:
    storage.warm_up()
except (BotoCoreError, ClientError) as error:
    # The first event opens the connection then.
    logger.warning("could not warm the table's connection up", extra={"error": str(error)})


@logger.inject_lambda_context
@event_source(data_class=LambdaFunctionUrlEvent)
def handler(event: LambdaFunctionUrlEvent, context) -> dict:
    received_at = time.time_ns() // 1_000_000
    path = event.raw_path
    if path.startswith(f"{BASE_PATH}/"):
        path = path[len(BASE_PATH) :]
    method = event.request_context.http.method
    if path != ROUTE:
        return answer(404, "not found")
    if method != "POST":
        return answer(405, "method not allowed")
    try:
        tenant = sender(event.headers.get("authorization"), method, path, event.raw_query_string, received_at)
        upload = read_upload(body(event))
        # Each carries the whole event: a worker may begin at once, and whoever looks for lost messages finds the row.
        row = writers.submit(storage.announce, tenant, upload, received_at)
        message = writers.submit(storage.enqueue, tenant, upload, received_at)
        is_new = row.result()
        message.result()
    except Unauthorized as refused:
        logger.warning("refused a call whose token does not hold", extra={"auth.reason": str(refused), "metric": "call_unauthorized"})
        # The same for every reason: it tells a forger nothing.
        return answer(401, "unauthorized")
    except (NotJson, InvalidUpload) as rejected:
        logger.warning("rejected an event", extra={"error": str(rejected), "metric": "event_rejected"})
        return answer(400 if isinstance(rejected, NotJson) else 422, str(rejected))
    except (BotoCoreError, ClientError) as error:
        logger.error("could not store an event", extra={"error": str(error), "metric": "event_not_stored"})
        return answer(503, "not stored, send it again")
    logger.info(
        "took an event in",
        extra={
            "tenant.id": tenant,
            "transfer.id": upload.transfer_id,
            "transfer.original_id": upload.original_transfer_id,
            "message.id": upload.message_id,
            "event.type": upload.event_type,
            "metric": "event_stored" if is_new else "event_duplicate",
        },
    )
    return answer(200)


def body(event: LambdaFunctionUrlEvent) -> str:
    try:
        return event.decoded_body or ""
    except ValueError:
        # No base64, or no UTF-8 in it.
        raise NotJson("the body is not JSON") from None


def answer(status: int, message: str = "") -> dict:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"message": message}) if message else "{}",
    }
