"""Sets up what the local cloud needs, or says what is missing on this machine and how to install it.

Runs with the machine's own Python, before anything is installed: standard library only, and syntax that an old Python can read.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
ENVIRONMENT = os.path.join(REPOSITORY, ".local", "venv")
REQUIREMENTS = os.path.join(HERE, "requirements.txt")
# What the environment was made from; written last, so that an interrupted set-up is done again.
STAMP = os.path.join(ENVIRONMENT, ".made-from")

OLDEST_PYTHON = (3, 11)


def wanted_rust():
    """`rust-version` of the workspace."""
    with open(os.path.join(REPOSITORY, "Cargo.toml")) as manifest:
        return re.search(r'^rust-version = "([0-9.]+)"', manifest.read(), re.MULTILINE).group(1)


def numbers(version):
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def missing():
    """What this machine lacks: pairs of what and how to get it."""
    found = []
    if sys.version_info < OLDEST_PYTHON:
        found.append(
            (
                "Python %d.%d or newer (this is %s)" % (OLDEST_PYTHON + (sys.version.split()[0],)),
                "install it, then name it: make PYTHON=/path/to/python3.11 ...",
            )
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        found.append(("Python's venv module", "Debian, Ubuntu: apt install python3-venv"))
    if not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")):
        found.append(
            ("a C compiler", "Debian, Ubuntu: apt install build-essential    macOS: xcode-select --install")
        )
    rust = wanted_rust()
    if not shutil.which("cargo"):
        found.append(("Rust %s or newer (cargo)" % rust, "https://rustup.rs, or: apt install rustup && rustup default stable"))
    else:
        answer = subprocess.run(["cargo", "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPOSITORY)
        version = answer.stdout.decode(errors="replace").strip()
        if answer.returncode != 0 or numbers(version.replace("cargo", "")) < numbers(rust):
            found.append(("Rust %s or newer (found: %s)" % (rust, version), "rustup update stable"))
    return found


def fingerprint():
    with open(REQUIREMENTS, "rb") as requirements:
        return hashlib.sha256(requirements.read() + sys.version.encode()).hexdigest()


def is_ready():
    try:
        with open(STAMP) as stamp:
            return stamp.read() == fingerprint() and os.path.exists(os.path.join(ENVIRONMENT, "bin", "python"))
    except OSError:
        return False


def set_up():
    import venv

    print("Setting up .local/venv (MiniStack, aws-sam-translator, pytest; about a minute, once)", flush=True)
    venv.EnvBuilder(with_pip=True, clear=True).create(ENVIRONMENT)
    installer = subprocess.Popen(
        [
            os.path.join(ENVIRONMENT, "bin", "python"),
            *("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps", "--requirement", REQUIREMENTS),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with open(REQUIREMENTS) as requirements:
        total = sum(1 for line in requirements if "==" in line)
    collected = 0
    lines = []
    live = sys.stdout.isatty()
    for line in installer.stdout:
        lines.append(line.decode(errors="replace"))
        if lines[-1].startswith("Collecting "):
            collected += 1
            if live:
                print("\r\033[K  %d/%d %s" % (collected, total, lines[-1].split()[1]), end="", flush=True)
        elif lines[-1].startswith("Installing collected"):
            print(("\r\033[K" if live else "") + "  installing %d packages" % total, flush=True)
    if installer.wait() != 0:
        sys.stderr.write("".join(lines[-30:]))
        sys.exit("pip failed; the lines above say at what. With a package index of your own, set PIP_INDEX_URL.")
    with open(STAMP, "w") as stamp:
        stamp.write(fingerprint())


def main():
    absent = missing()
    if absent:
        for what, how in absent:
            sys.stderr.write("missing: %s\n    %s\n" % (what, how))
        sys.exit(1)
    if not is_ready():
        set_up()


if __name__ == "__main__":
    main()
