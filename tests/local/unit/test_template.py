"""What the template promises, read from the template: the emulator doesn't apply all of it, so it can't be asked."""

import re
from functools import cache

import pytest
from cfnlint.decode import decode_str

from landfall_local.settings import REPOSITORY, TEMPLATE


@cache
def template() -> dict:
    content, problems = decode_str(TEMPLATE.read_text())
    assert not problems
    return content


def resources(kind: str) -> dict[str, dict]:
    return {name: body["Properties"] for name, body in template()["Resources"].items() if body["Type"] == kind}


def default(parameter: str):
    return template()["Parameters"][parameter].get("Default")


def test_a_message_comes_again_only_after_its_worker_must_have_ended():
    for name in ("EventsVisibilityTimeout", "ImportsVisibilityTimeout"):
        assert default(name) >= default("ProcessorTimeout")


def test_every_queue_is_encrypted_standard_and_has_a_dead_letter_queue_that_keeps_14_days():
    queues = resources("AWS::SQS::Queue")
    dead = {name for name in queues if name.endswith("DeadLetterQueue")}
    assert len(queues) == 4 and len(dead) == 2
    for name, queue in queues.items():
        assert queue["SqsManagedSseEnabled"] is True
        assert not queue.get("FifoQueue")
        if name in dead:
            assert queue["MessageRetentionPeriod"] == 14 * 24 * 3600
        else:
            assert queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0] in dead
            assert queue["RedrivePolicy"]["maxReceiveCount"] == 5


def test_the_tables_can_be_restored_are_encrypted_and_survive_the_stack():
    tables = {name: body for name, body in template()["Resources"].items() if body["Type"] == "AWS::DynamoDB::Table"}
    assert len(tables) == 2
    for table in tables.values():
        assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"
        assert table["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
        assert table["Properties"]["SSESpecification"]["SSEEnabled"] is True
        assert table["Properties"]["BillingMode"] == "PAY_PER_REQUEST"
    tracking = tables["TrackingTable"]["Properties"]
    assert tracking["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    index = tracking["GlobalSecondaryIndexes"][0]
    assert index["IndexName"] == "due" and index["Projection"]["ProjectionType"] == "KEYS_ONLY"
    assert default("DeletionProtection") == "true"


def test_both_mappings_report_single_failures_and_bound_their_workers():
    mappings = [
        event["Properties"]
        for function in resources("AWS::Serverless::Function").values()
        for event in function.get("Events", {}).values()
        if event["Type"] == "SQS"
    ]
    assert len(mappings) == 2
    for mapping in mappings:
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert "MaximumConcurrency" in mapping["ScalingConfig"]


def test_the_sweeper_runs_every_minute_with_an_input_of_its_own():
    sweep = resources("AWS::Serverless::Function")["SweeperFunction"]["Events"]["Sweep"]
    assert sweep["Type"] == "ScheduleV2"
    assert sweep["Properties"]["Input"] == '{"kind":"sweep"}'
    assert default("SweepSchedule") == "rate(1 minute)"


def test_arm64_is_the_default_and_secrets_are_never_shown():
    assert default("Architecture") == "arm64"
    assert all(template()["Parameters"][name]["NoEcho"] is True for name in ("SecretKey", "SinkSecret"))


def test_every_function_has_a_role_and_a_log_group_of_its_own():
    functions = resources("AWS::Serverless::Function")
    assert len(functions) == 3
    roles = [function["Role"]["Fn::GetAtt"][0] for function in functions.values()]
    groups = [function["LoggingConfig"]["LogGroup"]["Ref"] for function in functions.values()]
    assert len(set(roles)) == len(set(groups)) == 3
    for group in groups:
        assert "RetentionInDays" in resources("AWS::Logs::LogGroup")[group]
    for function in functions.values():
        assert "Policies" not in function, "SAM would add managed policies that grant every resource"


def test_lambda_adds_nothing_to_the_log_of_an_invocation_that_works_and_drops_none_of_our_lines():
    assert default("SystemLogLevel") == "WARN"
    for function in resources("AWS::Serverless::Function").values():
        logging = function["LoggingConfig"]
        # Of text Lambda's own lines can't be chosen; and a level of its own for our lines would be a second RUST_LOG.
        assert (logging["LogFormat"], logging["ApplicationLogLevel"]) == ("JSON", "TRACE")
        assert logging["SystemLogLevel"] == {"Ref": "SystemLogLevel"}


def statements(role: str):
    for policy in resources("AWS::IAM::Role")[role]["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]
    for policy in resources("AWS::IAM::Policy").values():
        if {"Ref": role} in policy["Roles"]:
            yield from policy["PolicyDocument"]["Statement"]


@pytest.mark.parametrize("role", ["IntakeRole", "ProcessorRole", "SweeperRole"])
def test_no_role_grants_a_star(role):
    for statement in statements(role):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        named = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert not any("*" in action for action in actions)
        assert all(isinstance(resource, dict) for resource in named), "a resource of this stack, not a pattern"
        assert "ManagedPolicyArns" not in resources("AWS::IAM::Role")[role]


def test_a_chain_of_slices_is_not_stopped_as_a_runaway_loop():
    assert resources("AWS::Serverless::Function")["ProcessorFunction"]["RecursiveLoop"] == "Allow"


def test_only_the_processor_may_use_the_sinks_bucket_and_only_if_there_is_one():
    policy = template()["Resources"]["ProcessorSinkPolicy"]
    assert policy["Condition"] == "HasSinkBucket"
    assert policy["Properties"]["Roles"] == [{"Ref": "ProcessorRole"}]
    assert default("SinkBucket") == ""
    objects, bucket = (statement["Resource"]["Fn::Sub"] for statement in policy["Properties"]["PolicyDocument"]["Statement"])
    assert bucket == "arn:${AWS::Partition}:s3:::${SinkBucket}" and objects == f"{bucket}/*"
    for role in ("IntakeRole", "SweeperRole"):
        assert not any("s3:" in str(statement["Action"]) for statement in statements(role))


@pytest.mark.parametrize(("alarm", "code"), [("SilentInstallationAlarm", "LF-SILENT-INSTALLATION"), ("SecondPhaseAlarm", "LF-SECOND-PHASE")])
def test_a_code_in_either_log_is_an_alarm(alarm, code):
    told = resources("AWS::CloudWatch::Alarm")[alarm]
    filters = [body for body in resources("AWS::Logs::MetricFilter").values() if body["FilterPattern"] == f'"{code}"']
    assert {body["LogGroupName"]["Ref"] for body in filters} == {"ProcessorLogs", "SweeperLogs"}
    for body in filters:
        (metric,) = body["MetricTransformations"]
        assert (metric["MetricNamespace"], metric["MetricName"]) == (told["Namespace"], told["MetricName"])


def test_the_vaults_key_is_rotated_outlives_the_stack_and_only_intake_seals_with_it():
    key = template()["Resources"]["VaultKey"]
    assert key["Properties"]["EnableKeyRotation"] is True
    assert key["DeletionPolicy"] == key["UpdateReplacePolicy"] == "Retain"
    assert default("SealWith") == "kms"
    for name in ("VaultKey", "SealingPolicy", "OpeningPolicy"):
        assert template()["Resources"][name]["Condition"] == "SealsWithKms"
    for role in ("IntakeRole", "ProcessorRole", "SweeperRole"):
        calls = [statement for statement in statements(role) if "kms:" in str(statement["Action"])]
        assert all(statement["Resource"] == {"Fn::GetAtt": ["VaultKey", "Arn"]} for statement in calls)
        sealing = ["kms:GenerateDataKey"] if role == "IntakeRole" else []
        assert sorted(statement["Action"] for statement in calls) == ["kms:Decrypt", *sealing]


# What the code calls, found by the operation's name, or by what its request alone has (S3), and what a role needs for it.
_CALLS = {
    r'"GetItem"': "dynamodb:GetItem",
    r'"PutItem"|\bPut\(WriteItem': "dynamodb:PutItem",
    r'"UpdateItem"|\bUpdate\(WriteItem': "dynamodb:UpdateItem",
    r'"DeleteItem"|\bDelete\(WriteItem': "dynamodb:DeleteItem",
    r"\bConditionCheck\(WriteItem": "dynamodb:ConditionCheckItem",
    r'"Query"': "dynamodb:Query",
    r'"Scan"': "dynamodb:Scan",
    r'"BatchGetItem"': "dynamodb:BatchGetItem",
    r'"BatchWriteItem"': "dynamodb:BatchWriteItem",
    r'"GetQueueAttributes"': "sqs:GetQueueAttributes",
    r'"SendMessage"': "sqs:SendMessage",
    r'"ReceiveMessage"': "sqs:ReceiveMessage",
    r'"DeleteMessage"': "sqs:DeleteMessage",
    r'"ChangeMessageVisibility"': "sqs:ChangeMessageVisibility",
    r'"GenerateDataKey"': "kms:GenerateDataKey",
    r'"Decrypt"': "kms:Decrypt",
    r"Method::PUT": "s3:PutObject",
    r"\bRANGE\b": "s3:GetObject",
    r'"list-type"': "s3:ListBucket",
    r'"part-number-marker"': "s3:ListMultipartUploadParts",
    r"Method::DELETE": "s3:DeleteObject",
}


def test_the_roles_together_grant_what_the_code_calls_and_nothing_more():
    sources = REPOSITORY.glob("shared/aws/src/**/*.rs")
    code = "\n".join(path.read_text() for path in sources)
    called = {action for pattern, action in _CALLS.items() if re.search(pattern, code)}
    granted = set()
    for role in ("IntakeRole", "ProcessorRole", "SweeperRole"):
        for statement in statements(role):
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            granted |= {action for action in actions if not action.startswith("logs:")}
    assert granted == called
