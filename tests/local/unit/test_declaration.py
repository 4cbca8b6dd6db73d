"""The declaration for local use, against the template as it is deployed here: the functions can't check these at start-up."""

import re
import tomllib

from landfall_local.settings import DEFAULT_CONFIG
from landfall_local.stack import LOCAL_PARAMETERS

# shared/transfer/src/clocks/own.rs, and the schedule and the queues of infra/template.yaml.
INVOCATION_MARGIN = 8
SWEEP_INTERVAL = 60
MAX_RECEIVE_COUNT = 5


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m|h|d)", text).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def test_the_local_clocks_keep_the_inequalities_with_the_local_template():
    clocks = {name: seconds(text) for name, text in tomllib.loads(DEFAULT_CONFIG.read_text())["clocks"].items()}
    processor = int(LOCAL_PARAMETERS["ProcessorTimeout"])
    events, imports = (int(LOCAL_PARAMETERS[f"{name}VisibilityTimeout"]) for name in ("Events", "Imports"))
    assert clocks["slice"] + INVOCATION_MARGIN <= processor <= min(events, imports)
    assert clocks["lease"] < imports
    assert clocks["lease"] + clocks["message_grace"] + SWEEP_INTERVAL < clocks["work_stale_after"]
    assert imports * MAX_RECEIVE_COUNT < clocks["work_stale_after"]
