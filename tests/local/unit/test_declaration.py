"""The declaration for local use, against the template as it is deployed here: the functions can't check these at start-up."""

import base64
import re
import tomllib

import pytest

from landfall_local import demo
from landfall_local.settings import DEFAULT_CONFIG, LOCAL_BUCKET, REPOSITORY, Problem, config_text, sink_parameters
from landfall_local.stack import LOCAL_PARAMETERS
from landfall_local.twin import AppIdentity

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


def test_the_local_forge_app_is_the_one_that_a_twin_plays_by_itself():
    app = demo.app_identity(DEFAULT_CONFIG).forge_app
    assert f'"{app}"' in (REPOSITORY / "tests" / "twin" / "src" / "lib.rs").read_text()


def test_everything_that_names_the_twin_follows_its_port(monkeypatch):
    monkeypatch.setenv("TWIN_PORT", "9110")
    declared = tomllib.loads(config_text())
    urls = [declared["connect"]["install_key_server"], declared["forge"]["key_set"], declared["forge"]["api"]]
    assert all(url.startswith("http://127.0.0.1:9110/") for url in urls), urls


@pytest.mark.parametrize(
    ("text", "app"),
    [
        ('[app]\nkey = "k"', AppIdentity("k", None)),
        ('[forge]\napp = "ari:cloud:ecosystem::app/a"', AppIdentity(None, "ari:cloud:ecosystem::app/a")),
        ('[app]\nkey = "k"\n[forge]\napp = "ari:cloud:ecosystem::app/a"', AppIdentity("k", "ari:cloud:ecosystem::app/a")),
    ],
)
def test_an_app_is_known_by_its_key_its_ari_or_both(tmp_path, text, app):
    file = tmp_path / "landfall.toml"
    file.write_text(text)
    assert demo.app_identity(file) == app


def test_a_declaration_of_no_app_is_a_problem_that_is_told(tmp_path):
    file = tmp_path / "landfall.toml"
    file.write_text("version = 1")
    with pytest.raises(Problem, match=r"neither app\.key nor forge\.app"):
        demo.app_identity(file)


def test_a_sink_gets_the_secret_and_the_bucket_that_it_needs_and_those_that_are_given_count(monkeypatch):
    for name in ("SINK_SECRET", "SINK_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    http, s3, staged = '[sink]\nkind = "http"\n', '[sink]\nkind = "s3"\n', '[forge]\nacknowledge = "staged"\n'
    assert sink_parameters('[sink]\nkind = "dynamodb"\n') == sink_parameters("") == sink_parameters("no toml") == {}
    assert sink_parameters(s3) == {"SinkBucket": LOCAL_BUCKET}
    made = sink_parameters(staged + http)
    assert made["SinkBucket"] == LOCAL_BUCKET
    assert len(base64.b64decode(made["SinkSecret"].removeprefix("whsec_"))) == 32
    assert made["SinkSecret"] != sink_parameters(http)["SinkSecret"]
    monkeypatch.setenv("SINK_SECRET", "whsec_Z2l2ZW4=")
    monkeypatch.setenv("SINK_BUCKET", "given")
    assert sink_parameters(staged + http) == {"SinkSecret": "whsec_Z2l2ZW4=", "SinkBucket": "given"}
