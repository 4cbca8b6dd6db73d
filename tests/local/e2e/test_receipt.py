"""The receipt: what became of every record, signed, with all exceptions."""

import csv
import json

import pytest

from landfall_local import receipt
from landfall_local.settings import Problem


def test_a_receipt_accounts_for_every_record_and_its_signature_holds(app, tmp_path):
    plan = app.migrate(
        {"label": "a.ndjson", "records": 400, "bad_records": 3, "missing_mappings": 5},
        {"label": "b.ndjson.gz", "records": 250, "gzip": True},
        manifest=True,
    )
    app.settled(plan["transfer_id"])
    transfer = app.closed(plan["transfer_id"])
    signed = app.stack.receipt(app.tenant, transfer.identifier)
    lines = list(app.stack.exceptions(app.tenant, transfer.identifier))
    found = receipt.write(tmp_path, signed, lines)
    assert found["status"] == "INCOMPLETE" and found["settled_by"] == "app"
    assert found["differences"] == []
    assert found["records"] == {"read": 650, "applied": 642, "unchanged": 0, "held": 5, "rejected": 3} == transfer.counts
    by_label = {file["label"]: file["records"]["read"] for file in found["files"]}
    assert by_label == {"a.ndjson": 400, "b.ndjson.gz": 250, "export-manifest": 0}
    exceptions = [json.loads(line) for line in (tmp_path / "exceptions.jsonl").read_text().splitlines()]
    assert [entry["outcome"] for entry in exceptions].count("held") == 5
    assert len(exceptions) == 8 == len(list(csv.DictReader((tmp_path / "exceptions.csv").open())))
    assert all(entry["label"] == "a.ndjson" and 1 <= entry["record"] <= 400 and entry["reason"] for entry in exceptions)
    assert all(entry["namespace"] and entry["key"] for entry in exceptions if entry["outcome"] == "held")
    assert [entry["record"] for entry in exceptions] == sorted(entry["record"] for entry in exceptions)

    forged = json.loads((tmp_path / "receipt.json").read_text())
    forged["payload"] = forged["payload"][:-2] + ("AA" if not forged["payload"].endswith("AA") else "BB")
    with pytest.raises(Problem, match="does not hold"):
        receipt.read(forged)
    with pytest.raises(Problem, match="changed"):
        receipt.write(tmp_path, signed, lines[:-1])


def test_a_transfer_that_was_never_seen_has_no_receipt(app):
    assert app.stack.receipt(app.tenant, "never-seen") is None


def test_a_re_run_is_receipted_with_what_it_left_alone(app):
    first = app.migrate({"label": "a.ndjson", "records": 300, "missing_mappings": 2}, manifest=True)
    app.settled(first["transfer_id"])
    app.closed(first["transfer_id"])
    second = app.twin.rerun(first["transfer_id"])
    app.settled(second["transfer_id"])
    app.closed(second["transfer_id"])
    found, _key = receipt.read(app.stack.receipt(app.tenant, second["transfer_id"]))
    assert found["chain"] == first["transfer_id"]
    assert found["records"]["unchanged"] == 298
    assert found["differences"] == []
