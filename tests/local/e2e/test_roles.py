"""The roles of the template, with the credentials that the functions themselves have."""

import boto3
import pytest
from botocore.exceptions import ClientError

from landfall_local.settings import REGION

KEY = {"pk": {"S": "WARM#UP"}, "sk": {"S": "WARM#UP"}}


class Role:
    """Calls AWS as a function does: its credentials are in the environment of its process."""

    def __init__(self, app, function: str):
        environment = app.wait(lambda: app.workers(function), 10, f"no {function} is running")[0].environ()
        assert environment["AWS_ACCESS_KEY_ID"].startswith("ASIA"), "the function runs as root"
        self.app = app
        self._session = boto3.Session(
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=environment["AWS_SESSION_TOKEN"],
            region_name=REGION,
        )

    def may(self, service: str, operation: str, **arguments) -> bool:
        client = self._session.client(service, endpoint_url=self.app.world.cloud.endpoint)
        try:
            getattr(client, operation)(**arguments)
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException"), error
            return False
        return True


@pytest.fixture
def busy(make_app):
    """All three functions have run. On a stack of its own: what the roles may send and write here is of no use to anybody."""
    app = make_app(parameters={"LogRetentionDays": "5"})
    app.succeeded(app.migrate({"label": "a.ndjson", "records": 20}, manifest=True)["transfer_id"])
    app.sweep()
    return app


def test_intake_may_write_rows_and_send_and_nothing_else(busy):
    role, table, records = Role(busy, "intake"), busy.tracking.table, busy.tracking.records_table
    assert role.may("dynamodb", "get_item", TableName=table, Key=KEY)
    assert role.may("sqs", "send_message", QueueUrl=busy.queue("TransferEvents"), MessageBody="{}")
    assert not role.may("dynamodb", "scan", TableName=table)
    assert not role.may("dynamodb", "delete_item", TableName=table, Key=KEY)
    assert not role.may("dynamodb", "get_item", TableName=records, Key=KEY)
    assert not role.may("sqs", "receive_message", QueueUrl=busy.queue("TransferEvents"))
    assert not role.may("lambda", "list_functions")


def test_the_processor_may_not_delete_or_scan_and_knows_no_dead_letters(busy):
    role, table, records = Role(busy, "processor"), busy.tracking.table, busy.tracking.records_table
    assert role.may("dynamodb", "put_item", TableName=records, Item=KEY | {"tenant": {"S": "nobody"}})
    for name in (table, records):
        assert not role.may("dynamodb", "delete_item", TableName=name, Key=KEY)
        assert not role.may("dynamodb", "scan", TableName=name)
    assert not role.may("sqs", "receive_message", QueueUrl=busy.queue("ImportJobsDeadLetter"))
    assert not role.may("sqs", "purge_queue", QueueUrl=busy.queue("ImportJobs"))


def test_the_sweeper_may_not_touch_records_or_take_living_messages(busy):
    role, table, records = Role(busy, "sweeper"), busy.tracking.table, busy.tracking.records_table
    assert role.may("dynamodb", "get_item", TableName=table, Key=KEY)
    assert not role.may("dynamodb", "put_item", TableName=records, Item=KEY)
    assert not role.may("dynamodb", "scan", TableName=table)
    assert not role.may("sqs", "receive_message", QueueUrl=busy.queue("ImportJobs"))
    assert not role.may("sqs", "send_message", QueueUrl=busy.queue("ImportJobsDeadLetter"), MessageBody="{}")


def test_with_kms_secrets_are_sealed_by_it_and_only_intake_may_seal(make_app):
    app = make_app(parameters={"SealWith": "kms"})
    app.succeeded(app.migrate({"label": "a.ndjson", "records": 20}, manifest=True)["transfer_id"])
    app.sweep()
    assert app.tracking.rows(f"TENANT#{app.tenant}", "STATE")[0]["secret"].startswith("v2.")
    for function in ("intake", "processor", "sweeper"):
        role = Role(app, function)
        key = app.workers(function)[0].environ()["LANDFALL_KMS_KEY"]
        assert role.may("kms", "generate_data_key", KeyId=key, KeySpec="AES_256") == (function == "intake")
        assert not role.may("kms", "encrypt", KeyId=key, Plaintext=b"secret")
        assert not role.may("kms", "disable_key", KeyId=key)
