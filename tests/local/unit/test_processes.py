"""Leftovers are recognised by where they run, and nothing else is ever ended."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from landfall_local import processes
from landfall_local.cloud import Instance
from landfall_local.settings import Port, Problem


@pytest.fixture
def sleeper(tmp_path):
    """A process whose executable lies in the instance's folder, like an unpacked function's bootstrap."""
    folder = tmp_path / "cloud" / "tmp" / "code"
    folder.mkdir(parents=True)
    program = folder / "bootstrap"
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([program, "60"], env={"AWS_LAMBDA_FUNCTION_NAME": "landfall-processor"})
    yield process
    process.kill()
    process.wait()


def test_a_left_over_function_is_found_by_its_path_and_ended(tmp_path, sleeper):
    found = processes.running_in(tmp_path / "cloud")
    assert [process.pid for process in found] == [sleeper.pid]
    assert processes.end_all_in(tmp_path / "cloud") == 1
    assert not processes.psutil.pid_exists(sleeper.pid)


def test_a_function_is_told_apart_by_its_name(tmp_path, sleeper):
    assert [process.pid for process in processes.functions_in(tmp_path / "cloud", "landfall-processor")] == [sleeper.pid]
    assert processes.functions_in(tmp_path / "cloud", "landfall-intake") == []


def test_a_shell_that_somebody_left_in_the_folder_is_not_ours(tmp_path):
    bystander = subprocess.Popen([shutil.which("sleep"), "60"], cwd=tmp_path)
    try:
        assert processes.running_in(tmp_path) == []
    finally:
        bystander.kill()
        bystander.wait()


def test_a_process_id_that_was_given_to_another_process_does_not_count():
    assert processes.alive(os.getpid(), processes.psutil.Process().create_time())
    assert not processes.alive(os.getpid(), processes.psutil.Process().create_time() - 60)


def test_a_taken_port_names_its_owner_and_the_variable_that_moves_it(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("CLOUD_PORT", str(taken.getsockname()[1]))
        with pytest.raises(Problem, match=r"is taken.*make run CLOUD_PORT=\d+"):
            processes.require_free(Port("CLOUD_PORT", 4566), "run")


@pytest.mark.parametrize("text", ["0", "70000", "web", "-1"])
def test_what_is_no_port_is_refused_by_its_variables_name(monkeypatch, text):
    monkeypatch.setenv("CLOUD_PORT", text)
    with pytest.raises(Problem, match="CLOUD_PORT"):
        Port("CLOUD_PORT", 4566).number()


def test_a_killed_run_leaves_nothing_in_the_way_of_the_next(tmp_path, sleeper):
    instance = Instance(tmp_path / "cloud")
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    instance.write({"command": "run", "supervisor": {"pid": int(ended.stdout), "started": 1.0}})
    assert instance.in_use() is None
    instance.take("run", supervised=True)
    assert not processes.psutil.pid_exists(sleeper.pid)


def test_a_running_cloud_is_not_taken_over(tmp_path, sleeper):
    instance = Instance(tmp_path / "cloud")
    instance.write({"command": "up", "supervisor": None, "endpoint": "http://127.0.0.1:4566"})
    with pytest.raises(Problem, match="make down"):
        instance.take("run", supervised=True)
    assert sleeper.poll() is None


def test_a_state_file_that_was_half_written_counts_as_none(tmp_path):
    instance = Instance(tmp_path)
    instance.state_file.write_text('{"command": "ru')
    assert instance.read() is None
    assert instance.in_use() is None
