"""Starting, recognising and ending the processes of one local cloud.

Every process that we start runs inside a folder of ours: MiniStack and the twin have the instance's folder as their working
directory, and the functions' `bootstrap` files lie below it, because MiniStack unpacks the zips there. That is how leftovers are
recognised, even those of a run that was killed before it could write anything down: by where they run, never by a name alone.
They are ended one by one, by process id.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

from .settings import HOST, Port, Problem


def start(command: list[str], directory: Path, log: Path, environment: dict[str, str]) -> subprocess.Popen:
    """Starts a process in `directory`, away from the terminal's Ctrl-C: we end it ourselves, in our order."""
    directory.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def running_in(directory: Path) -> list[psutil.Process]:
    """All processes that belong to the instance in `directory`."""
    inside = str(directory.resolve()) + os.sep
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            executable = process.exe() or ""
            if executable.startswith(inside):
                found.append(process)
                continue
            # A shell that a user left in the folder is not ours: it must also be one of the programs that we start there.
            if process.cwd() == inside.rstrip(os.sep) and _is_ours(process.cmdline(), executable):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def _is_ours(command: list[str], executable: str) -> bool:
    return "ministack" in command or Path(executable).name.startswith("landfall-twin")


def end(processes: list[psutil.Process], patience: float = 5.0) -> None:
    """Asks each process to end, and kills those that do not within `patience` seconds."""
    for process in processes:
        try:
            process.send_signal(signal.SIGTERM)
        except psutil.NoSuchProcess:
            pass
    _, alive = psutil.wait_procs(processes, timeout=patience)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(alive, timeout=patience)


def end_all_in(directory: Path) -> int:
    """Ends everything that belongs to the instance: first the cloud, so that it starts no new function, then what it left."""
    ended = 0
    for _ in range(5):
        processes = running_in(directory)
        if not processes:
            break
        clouds = [process for process in processes if not _is_function(process, directory)]
        end(clouds or processes)
        ended += len(clouds or processes)
    return ended


def _is_function(process: psutil.Process, directory: Path) -> bool:
    try:
        return process.exe().startswith(str(directory.resolve()) + os.sep)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return True


def functions_in(directory: Path, name: str) -> list[psutil.Process]:
    """The running processes of one function, told apart by AWS_LAMBDA_FUNCTION_NAME."""
    found = []
    for process in running_in(directory):
        try:
            if process.environ().get("AWS_LAMBDA_FUNCTION_NAME") == name:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def require_free(port: Port, target: str) -> int:
    """The port's number, or a problem that names who has it and which variable chooses another."""
    number = port.number()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError as error:
            raise Problem(
                f"port {number} is taken{_owner(number)} ({error.strerror}); choose another one: "
                f"make {target} {port.variable}={number + 1000 if number < 64000 else number - 1000}"
            ) from error
    return number


def _owner(number: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == number and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return ""


def free_port() -> int:
    """A port that nobody has right now, for the tests' own clouds."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def alive(pid: int, started: float) -> bool:
    """Whether the process that was `pid` at `started` still runs (a number that was given to another one doesn't count)."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, seconds: float, what: str, interval: float = 0.05):
    """Calls `condition` until it answers something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Problem(f"{what}: not within {seconds:g} seconds")
        time.sleep(interval)
