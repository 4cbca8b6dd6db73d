"""A bucket as the sink, read as a consumer reads it."""

import hashlib
import json

from harness import Declaration

BUCKET = "landfall-target"
IMPORTS = """
# The first label that matches counts, and `*` matches what is below attachments/, too.
[[imports]]
label = "attachments/*"
format = "raw"

[[imports]]
label = "*.ndjson"
natural_key = "/id"
"""
S3_SINK = Declaration(sink='kind = "s3"\ntimeout = "3s"\nprefix = "in/"', imports=IMPORTS)


def test_records_and_attachments_lie_in_the_bucket_with_an_index_each(make_app, world):
    storage = world.cloud.client("s3")
    world.cloud.make_bucket(BUCKET)
    app = make_app(S3_SINK, {"SinkBucket": BUCKET})
    plan = app.migrate(
        {"label": "a.ndjson", "records": 400},
        {"label": "attachments/1.ndjson.gz", "records": 10, "gzip": True},
        # Some pieces of 8 MiB each, so an upload in parts.
        {"label": "attachments/2.bin", "bytes": 20_000_000},
    )
    platform = app.settled(plan["transfer_id"])
    assert platform["state"] == "SUCCESS", app.story(plan["transfer_id"])
    assert app.closed(plan["transfer_id"]).counts["applied"] == 402

    pages = storage.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="in/")
    names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    read = lambda name: storage.get_object(Bucket=BUCKET, Key=name)["Body"].read()  # noqa: E731
    indexes = {index["label"]: index for index in (json.loads(read(name)) for name in names if name.endswith("/index.json"))}
    assert set(indexes) == {file["label"] for file in plan["files"]}
    assert all(index["complete"] for index in indexes.values())

    lines = [json.loads(line) for entry in indexes["a.ndjson"]["objects"] for line in read(entry["name"]).splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == 400
    for label in ("attachments/1.ndjson.gz", "attachments/2.bin"):
        (entry,) = indexes[label]["objects"]
        content = read(entry["name"])
        file = next(file for file in plan["files"] if file["label"] == label)
        assert len(content) == entry["bytes"] == file["bytes"]
        assert hashlib.sha256(content).hexdigest() == indexes[label]["content_hash"]
    assert read(indexes["attachments/1.ndjson.gz"]["objects"][0]["name"])[:2] == b"\x1f\x8b", "it stays compressed"
