"""The queue model against SQS as the local cloud speaks it."""

import os
import subprocess

from landfall_local.build import SIMULATION
from landfall_local.settings import REPOSITORY

# Building the tests on a fresh checkout takes minutes; running them takes seconds.
_SECONDS = 900

# The same packages as in `make test`, and with them the same features: what was built there isn't built again, beside tests that are timed.
_COMMAND = ["cargo", "test", "--locked", "--workspace", "--exclude", SIMULATION, "--test", "conformance", "queue::"]


def test_sqs_keeps_the_promises_that_the_queue_model_keeps(world):
    run = subprocess.run(
        _COMMAND,
        cwd=REPOSITORY,
        env=os.environ | {"LANDFALL_SQS_ENDPOINT": world.cloud.endpoint},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_SECONDS,
    )
    assert run.returncode == 0, run.stdout
    assert "LANDFALL_SQS_ENDPOINT is not set" not in run.stdout
    assert "test result: ok" in run.stdout, run.stdout
