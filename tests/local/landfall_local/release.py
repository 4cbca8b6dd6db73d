"""`make package`: the zips that go to AWS, of the release profile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from .settings import REPOSITORY, STATE, TARGET, Problem, config_path
from .stack import FUNCTIONS, architecture, package

TRIPLES = {"x86_64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
CROSS_COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}
CROSS_PACKAGES = {"x86_64": "gcc-x86-64-linux-gnu", "arm64": "gcc-aarch64-linux-gnu"}
# The C library of Amazon Linux 2023, on which provided.al2023 runs.
NEWEST_GLIBC = (2, 34)


def make(target_architecture: str | None) -> None:
    """Builds, checks and zips the three functions: for one architecture, or for each that this machine can build for."""
    if not os.environ.get("CONFIG"):
        raise Problem("CONFIG is not set: name the landfall.toml that goes into the zips, make package CONFIG=my/landfall.toml")
    wanted = [target_architecture] if target_architecture else sorted(TRIPLES)
    # Zips of an earlier build must not be taken for these, least of all where none can be made now.
    for name in wanted:
        shutil.rmtree(STATE / "package" / name, ignore_errors=True)
    missing = {}
    for name in wanted:
        try:
            _require(name)
        except Problem as problem:
            missing[name] = problem
            continue
        _make(name)
    if len(missing) == len(wanted):
        raise Problem("; ".join(map(str, missing.values())))
    for name, problem in missing.items():
        print(f"No zips for {name}: {problem}")
    print("infra/README.md says how they get to AWS.")


def _make(target_architecture: str) -> None:
    config = config_path()
    triple = TRIPLES[target_architecture]
    environment = dict(os.environ)
    command = ["cargo", "build", "--locked", "--release", "--target", triple]
    for name in FUNCTIONS:
        command += ["--package", f"landfall-{name}"]
    if target_architecture != architecture():
        compiler = CROSS_COMPILERS[target_architecture]
        environment[f"CARGO_TARGET_{triple.upper().replace('-', '_')}_LINKER"] = compiler
        environment[f"CC_{triple.replace('-', '_')}"] = compiler
    if subprocess.run(command, cwd=REPOSITORY, env=environment).returncode != 0:
        raise Problem("the build failed; Cargo's message above says why")

    folder = STATE / "package" / target_architecture
    folder.mkdir(parents=True, exist_ok=True)
    for name in FUNCTIONS:
        program = (TARGET / triple / "release" / f"landfall-{name}").read_bytes()
        newest = newest_glibc(program)
        if newest > NEWEST_GLIBC:
            raise Problem(
                f"{name} needs glibc {newest[0]}.{newest[1]}, but provided.al2023 has {NEWEST_GLIBC[0]}.{NEWEST_GLIBC[1]}: "
                "build on Debian 12, Ubuntu 22.04 or Amazon Linux 2023"
            )
        content = package(program, config.read_bytes())
        (folder / f"{name}.zip").write_bytes(content)
        print(f"{folder.relative_to(REPOSITORY) / name}.zip  {len(content) / 1e6:.1f} MB, needs glibc {newest[0]}.{newest[1]}")


def newest_glibc(program: bytes) -> tuple[int, int]:
    """The newest glibc that the program's symbols ask for."""
    versions = {tuple(map(int, found)) for found in re.findall(rb"GLIBC_(\d+)\.(\d+)", program)}
    return max(versions, default=(0, 0))


def _require(target_architecture: str) -> None:
    """What a build for this architecture needs."""
    _require_target(TRIPLES[target_architecture])
    if target_architecture != architecture():
        _require_cross_compiler(target_architecture)


def _require_target(triple: str) -> None:
    root = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, cwd=REPOSITORY).stdout.strip()
    if not os.path.isdir(os.path.join(root, "lib", "rustlib", triple)):
        raise Problem(f"Rust's standard library for {triple} is not installed: rustup target add {triple}")


def _require_cross_compiler(target_architecture: str) -> None:
    if not shutil.which(CROSS_COMPILERS[target_architecture]):
        raise Problem(
            f"{CROSS_COMPILERS[target_architecture]} is not installed (the C parts have to be built for {target_architecture} too): "
            f"apt install {CROSS_PACKAGES[target_architecture]}; or build for this machine: "
            f"make package ARCHITECTURE={architecture()}, and deploy with Architecture={architecture()}"
        )
