"""The end-to-end tests' lanes: each file in one, all about as long, and nothing left when they are ended."""

import subprocess
import time

import pytest

from landfall_local import lanes
from landfall_local.settings import REPOSITORY

FILES = {file.name for file in (REPOSITORY / "tests/local/e2e").glob("test_*.py")}


def test_every_file_is_in_one_lane_and_the_lanes_are_about_as_long():
    chosen = lanes.assigned(FILES, lanes.LANES)
    assert chosen.keys() == FILES
    assert set(chosen.values()) == set(range(1, lanes.LANES + 1))
    lengths = [sum(lanes.SECONDS.get(file, 0) for file in FILES if chosen[file] == lane) for lane in set(chosen.values())]
    assert max(lengths) - min(lengths) < 0.1 * sum(lengths)


def test_the_order_in_which_files_are_found_changes_nothing():
    assert lanes.assigned(sorted(FILES), 2) == lanes.assigned(sorted(FILES, reverse=True), 2)


def test_a_new_file_has_a_lane_by_itself():
    assert lanes.assigned({*FILES, "test_new.py"}, 2)["test_new.py"] in (1, 2)


def test_only_files_that_exist_have_a_duration():
    assert lanes.SECONDS.keys() <= FILES


@pytest.fixture
def started(monkeypatch):
    """What runs in each lane instead of pytest is a shell's command; gives the processes, which are added as they start."""
    processes = []

    def scripted(script: str) -> list[subprocess.Popen]:
        start = lanes._start
        monkeypatch.setattr(lanes, "_start", lambda _, output=None: processes.append(start(["/bin/sh", "-c", script], output)) or processes[-1])
        return processes

    return scripted


def test_both_lanes_are_shown_whole_and_give_their_exit_codes(started, tmp_path, capfd):
    started("echo begun; printf ended; exit 3")
    ended = lanes.run("tests/some", tmp_path)
    assert ended == [(tmp_path / "some-1.xml", 3), (tmp_path / "some-2.xml", 3)]
    shown = capfd.readouterr().out.splitlines()
    assert sorted(shown) == ["1 | begun", "1 | ended", "2 | begun", "2 | ended"]
    assert (tmp_path / "some-1.txt").read_text() == "begun\nended"


def test_whoever_ends_us_ends_both_lanes_and_waits_until_they_have_cleaned_up(started, tmp_path, monkeypatch):
    processes = started("trap 'sleep 0.3; echo cleaned up; exit 2' TERM; echo ready; while true; do sleep 0.1; done")

    def interrupted(_):
        if all((tmp_path / f"some-{number}.txt").read_text() for number in (1, 2)):
            raise KeyboardInterrupt

    monkeypatch.setattr(lanes.Lane, "show", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lanes.run("tests/some", tmp_path)
    assert [process.returncode for process in processes] == [2, 2]
    assert [(tmp_path / f"some-{number}.txt").read_text() for number in (1, 2)] == ["ready\ncleaned up\n"] * 2


def test_whoever_ends_us_ends_tests_that_run_alone_as_well(started, monkeypatch):
    processes = started("trap 'exit 2' TERM; while true; do sleep 0.1; done")
    wait = subprocess.Popen.wait

    def interrupted(process, timeout=None):
        if timeout is not None:
            return wait(process, timeout)
        time.sleep(0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lanes.run_alone(["pytest"])
    assert [process.returncode for process in processes] == [2]
