"""One local cloud and one twin for the whole suite, on ports of their own: a `make up` beside it is not disturbed."""

from __future__ import annotations

import os
import signal

import pytest

from harness import APP_KEY, FORGE_APP, App, Declaration, World
from landfall_local import processes
from landfall_local.cloud import Cloud, Instance
from landfall_local.settings import STATE
from landfall_local.twin import AppIdentity, Twin


def pytest_configure(config):
    config.addinivalue_line("markers", "last: runs after all the others, because it looks at what they left")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session", autouse=True)
def _cleaned_up_when_terminated():
    """A SIGTERM ends the suite like Ctrl-C, so that the fixtures still clean up."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


@pytest.fixture(scope="session")
def world():
    """The cloud, the twin, and every stack that was deployed."""
    # A second run beside this one gets a folder of its own.
    folders = (Instance(STATE / (f"e2e-{number}" if number > 1 else "e2e")) for number in range(1, 10))
    instance = next(folder for folder in folders if not folder.in_use())
    instance.take("test", supervised=True)
    twin_folder = instance.directory / "twin"
    try:
        cloud = Cloud(instance.directory, processes.free_port())
        cloud.start()
        twin = Twin(twin_folder, processes.free_port(), processes.free_port())
        twin.start(AppIdentity(APP_KEY, FORGE_APP), seed=20261122)
        yield World(cloud, twin)
    finally:
        processes.end_all_in(twin_folder)
        processes.end_all_in(instance.directory)
        instance.state_file.unlink(missing_ok=True)


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
