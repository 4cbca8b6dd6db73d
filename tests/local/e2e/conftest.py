"""One local cloud and one twin for the whole suite, or for each of its lanes, on ports of their own: a `make up` beside it is not disturbed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal

import pytest

from harness import APP_KEY, FORGE_APP, App, Declaration, World
from landfall_local import lanes, processes
from landfall_local.cloud import Cloud, Instance
from landfall_local.settings import STATE
from landfall_local.twin import AppIdentity, Twin


def pytest_addoption(parser):
    parser.addoption("--lane", type=int, choices=range(1, lanes.LANES + 1), help="only this lane's share of the files")


def pytest_configure(config):
    what_last_means = "last: runs after all the others, because it looks at what they left; in each lane, which has a world of its own"
    config.addinivalue_line("markers", what_last_means)


def is_last(item) -> bool:
    """Whether a test looks at what the others left."""
    return item.get_closest_marker("last") is not None


def pytest_collection_modifyitems(config, items):
    lane = config.getoption("lane")
    if lane is not None:
        chosen = lanes.assigned((item.path.name for item in items), lanes.LANES)
        config.hook.pytest_deselected(items=[item for item in items if not is_last(item) and chosen[item.path.name] != lane])
        items[:] = [item for item in items if is_last(item) or chosen[item.path.name] == lane]
    items.sort(key=is_last)


@pytest.fixture(scope="session", autouse=True)
def _cleaned_up_when_terminated():
    """A SIGTERM ends the suite like Ctrl-C, so that the fixtures still clean up."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


@pytest.fixture(scope="session")
def world():
    """The cloud, the twin, and every stack that was deployed."""
    with contextlib.ExitStack() as leaving:
        with settling_in():
            # A second run, or lane, beside this one gets a folder of its own.
            folders = (Instance(STATE / (f"e2e-{number}" if number > 1 else "e2e")) for number in range(1, 10))
            instance = next(folder for folder in folders if not folder.in_use())
            leaving.callback(instance.state_file.unlink, missing_ok=True)
            leaving.callback(processes.end_all_in, instance.directory)
            instance.take("test", supervised=True)
            cloud = Cloud(instance.directory, processes.free_port())
            cloud.start()
            twin = Twin(instance.directory / "twin", processes.free_port(), processes.free_port())
            leaving.callback(processes.end_all_in, twin.directory)
            twin.start(AppIdentity(APP_KEY, FORGE_APP), seed=20261122)
        yield World(cloud, twin)


@contextlib.contextmanager
def settling_in():
    """One at a time: a folder counts as taken once something runs in it, and a port once somebody listens."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "e2e.lock").open("w") as lock:
        # Whoever dies gives it back; processes that we start don't inherit it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def twin(world: World):
    """The twin, without the switches and faults of other tests."""
    world.twin.calm()
    yield world.twin
    world.twin.calm()


@pytest.fixture
def app(world: World, twin, request) -> App:
    """The app as most tests want it, installed on a site of the test's own."""
    return world.app(request.node.name, Declaration())


@pytest.fixture
def make_app(world: World, twin, request):
    """The app with another declaration or other parameters of the template; the same ones share a stack."""

    def make(declaration: Declaration | None = None, parameters: dict[str, str] | None = None, suffix: str = "") -> App:
        return world.app(request.node.name + suffix, declaration or Declaration(), parameters)

    return make
