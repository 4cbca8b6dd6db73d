"""Building the programs, with Cargo's own progress on the terminal."""

from __future__ import annotations

import subprocess

from .settings import REPOSITORY, Problem

PROGRAMS = ("landfall-intake", "landfall-processor", "landfall-sweeper")
TWIN = "landfall-twin"
SIMULATION = "landfall-simulation"
FOOTPRINT = "landfall-footprint"
CORE = "landfall-transfer"


def build(*packages: str, profile: str = "local") -> None:
    """Builds the programs for this machine, together. Cargo asks the registry only for what is not there yet."""
    command = ["cargo", "build", "--locked", "--profile", profile]
    for package in packages:
        command += ["--package", package]
    if subprocess.run(command, cwd=REPOSITORY).returncode != 0:
        raise Problem("the build failed; Cargo's message above says why")
