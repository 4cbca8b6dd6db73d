"""`make cost`: that a bill is what was counted times what it costs, and that what is committed can be read."""

import copy
import json
import tomllib

import pytest

from landfall_local import cost
from landfall_local.settings import TEMPLATE

TEMPLATE_TEXT = """
Parameters:
  SystemLogLevel:
    Type: String
    # Why it is so little.
    Default: WARN
    AllowedValues: [DEBUG, INFO, WARN]
  Silent:
    Type: String

Resources:
  IntakeFunction:
    Type: AWS::Serverless::Function
    Properties:
      # Why it is so much.
      MemorySize: 512

  ProcessorFunction:
    Properties:
      MemorySize: 1024
      Timeout: 90
  SweeperFunction:
    Properties:
      MemorySize: 512
  Alarm:
    Type: AWS::CloudWatch::Alarm
"""


@pytest.fixture
def model() -> cost.Model:
    return cost.Model.load()


@pytest.fixture
def round_prices() -> cost.Model:
    """Prices that can be multiplied in one's head, for one call of everything."""
    prices = tomllib.loads(cost.PRICES.read_text())
    prices["dynamodb"].update(million_write_units=1.0, million_read_units=1.0, gigabyte_month=1.0, gigabyte_month_recoverable=1.0)
    prices["sqs"].update(million_requests=1.0, million_fair_requests=10.0)
    prices["lambda"].update(million_requests=1.0, gigabyte_second=1.0)
    prices["logs"].update(gigabyte=1.0, bytes_of_a_line=10)
    prices["front_door"].update(million_function_url_calls=0.0, million_http_api_calls=7.0)
    prices["assumed"]["milliseconds"].update(invocation=0.0, write=20.0, send=10.0, get=5.0, transact=25.0)
    prices["assumed"]["other"].update(log_bytes_of_lambda=500, bytes_of_a_row=100)
    return cost.Model({}, prices, TEMPLATE_TEXT)


def counted(**parts) -> dict:
    return {"functions": {}, "queues": {}, "rows": {}, **parts}


def row(**parts) -> dict:
    names = ("writes", "checks", "write_units", "index_write_units", "reads", "half_read_units", "stored", "stored_bytes", "kept_days")
    return dict.fromkeys(names, 0) | parts


def work(invocations: int, lines: int = 0, line: int = 0, handed: int | None = None, **calls) -> dict:
    logged = {"lines": lines, "bytes": lines * line}
    made = {name.replace("_", "."): times for name, times in calls.items()}
    return {"invocations": invocations, "handed": handed or invocations, "logged": logged, "calls": made}


def bill(model: cost.Model, parts: dict, times: float = cost.MILLION, **options) -> dict[str, float]:
    return {line.item: pytest.approx(line.dollars) for line in model.bill(parts, times, **options)}


def test_units_of_rows_are_told_apart_by_what_they_are_for(round_prices):
    rows = {
        "file": row(write_units=14, index_write_units=4, half_read_units=3),
        "transfer": row(write_units=8),
        "segment": row(write_units=2),
        "record": row(write_units=20),
        "pace": row(write_units=1, half_read_units=2),
    }
    assert bill(round_prices, counted(rows=rows)) == {
        "DynamoDB: writes": 22,
        "DynamoDB: writes of the index": 4,
        "DynamoDB: writes of the ledger": 2,
        "DynamoDB: writes of records": 20,
        "DynamoDB: writes of the site's pace": 1,
        "DynamoDB: reads": 1.5,
        "DynamoDB: reads of the site's pace": 1,
    }


def test_a_message_is_sent_received_and_deleted_and_its_group_costs_once(round_prices):
    queues = {"imports": {"sends": 1, "receives": 1, "deletes": 1, "bytes": 700}}
    assert bill(round_prices, counted(queues=queues)) == {"SQS: sent, received, deleted": 3, "SQS: fair queues": 10}


def test_intake_waits_for_the_longer_of_its_two_writes_and_others_for_one_call_after_the_other(round_prices):
    calls = {"table_write": 1, "imports_send": 1, "table_get": 1}
    for function, seconds in (("intake", 0.025), ("events", 0.035)):
        assert round_prices.seconds(function, work(1, **calls), counted()) == pytest.approx((seconds, 0))


def test_an_import_waits_for_its_calls_and_for_its_bytes_and_for_its_sites_pace(round_prices):
    parts = counted(imported={"files": 1, "records": 10, "bytes": 100_000_000})
    assert round_prices.seconds("imports", work(1, table_transact=2), parts) == pytest.approx((0.05, 2))
    assert round_prices.seconds("imports", work(1, table_transact=2, pace_get=2), parts) == pytest.approx((0.05, 2.01))


def test_the_messages_of_a_batch_wait_side_by_side(round_prices):
    assert round_prices.seconds("events", work(1, handed=10, table_get=20), counted()) == pytest.approx((0.01, 0))


def test_compute_is_billed_by_the_memory_that_the_template_gives(round_prices):
    functions = {"intake": work(1, table_write=1), "imports": work(1, table_write=1)}
    found = bill(round_prices, counted(functions=functions), 1)
    assert found["intake: 512 MB, tables and queues"] == 0.02 * 0.5
    assert found["processor: 1024 MB, tables and queues"] == 0.02


@pytest.mark.parametrize(("level", "added"), [("WARN", 0), ("INFO", 500), ("DEBUG", 500)])
def test_each_line_costs_a_bit_more_than_its_bytes_and_what_lambda_adds_what_the_template_lets_it(round_prices, level, added):
    model = cost.Model({}, round_prices.prices, TEMPLATE_TEXT.replace("Default: WARN", f"Default: {level}"))
    functions = {"intake": work(1, lines=2, line=300), "imports": work(1)}
    assert bill(model, counted(functions=functions), 1)["logs"] == (2 * 310 + 2 * added) / 1e9


def test_a_parameters_default_is_its_own_and_not_that_of_the_next_one():
    assert cost.default_of(TEMPLATE_TEXT, "SystemLogLevel") == "WARN"
    with pytest.raises(ValueError, match="Silent"):
        cost.default_of(TEMPLATE_TEXT, "Silent")


def test_the_processors_two_queues_are_one_item(round_prices):
    functions = {"events": work(2), "imports": work(3)}
    assert bill(round_prices, counted(functions=functions))["processor: requests"] == 5


def test_only_the_http_api_asks_for_money_at_the_door(round_prices):
    functions = {"intake": work(1)}
    assert "function URL" not in bill(round_prices, counted(functions=functions))
    assert bill(round_prices, counted(functions=functions), http_api=True)["HTTP API"] == 7


def test_rows_cost_until_they_expire_and_those_that_never_do_are_left_to_whoever_asks(round_prices):
    rows = {"timeline": row(stored=1, stored_bytes=900, kept_days=30), "record": row(stored=1, stored_bytes=900)}
    assert bill(round_prices, counted(rows=rows)) == {"DynamoDB: rows until they expire": 2.0}


def test_the_memory_is_that_of_the_function_and_not_of_the_next_one():
    assert cost.memory_megabytes(TEMPLATE_TEXT, "ProcessorFunction") == 1024
    assert cost.memory_megabytes(TEMPLATE.read_text(), "IntakeFunction") > 0
    with pytest.raises(ValueError, match="Alarm"):
        cost.memory_megabytes(TEMPLATE_TEXT, "Alarm")


def test_every_call_that_was_counted_has_an_assumed_duration(model):
    waits = model.prices["assumed"]["milliseconds"]
    text = cost.COUNTS.read_text()

    def calls(node):
        if isinstance(node, dict):
            yield from node.get("calls", {})
            for inner in node.values():
                yield from calls(inner)

    named = set(calls(json.loads(text)))
    assert named
    for name in named:
        assert cost._wait(name) in waits, name


def test_every_kind_of_row_that_was_counted_is_in_the_bill(model):
    """A unit more of any kind makes it dearer."""
    whole = model.counts["transfers"]["1"]
    before = cost.total(model.bill(whole, 1))
    for kind in whole["rows"]:
        for unit in ("write_units", "index_write_units", "half_read_units"):
            more = copy.deepcopy(whole)
            more["rows"][kind][unit] += 1000
            assert cost.total(model.bill(more, 1)) > before, (kind, unit)


def test_a_gigabyte_costs_what_its_length_adds(model):
    for sink in ("http", "dynamodb", "s3"):
        lines = model.gigabyte(sink)
        assert lines
        assert not any(line.item in ("intake: requests", "SQS: sent, received, deleted") for line in lines)
    # One row for each record is what makes the records table the dearest sink.
    totals = {sink: cost.total(model.gigabyte(sink)) for sink in ("http", "dynamodb", "s3")}
    assert max(totals, key=totals.get) == "dynamodb"


def test_control_events_that_come_ten_at_a_time_stay_below_four_dollars_a_million(model):
    path = sum(line.dollars for line in model.control_events_in_a_burst() if line.purpose == cost.PATH)
    assert path < 4


def test_the_report_has_every_question_and_says_of_when_its_prices_are(model):
    text = cost.report(model)
    for part in ("A million events", "A million control events", "A gigabyte", "A whole transfer", "A month", str(model.prices["list"]["date"])):
        assert part in text
