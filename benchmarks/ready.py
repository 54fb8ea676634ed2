"""`python benchmarks/ready.py`: says in one line what an environment lacks for `make gpu`; needs nothing itself."""

from __future__ import annotations

import configparser
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# What the tests on a device need beside the package's own requirements.
TESTS = ("beartype", "pytest", "pytest-timeout")


def missing() -> list[str]:
    """Requirements of setup.cfg, and of the tests, that are not installed."""
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).resolve().parents[1] / "setup.cfg")
    lines = parser["options"]["install_requires"].split()
    return [line for line in (*lines, *TESTS) if not _installed(re.split(r"[<>=!~\[]", line)[0])]


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def main() -> int:
    """The exit code: 0 if nothing is missing."""
    found = missing()
    if not found:
        return 0
    if any(line.startswith("torch>") for line in found):
        print(f"gpu: {sys.executable} has no torch: install a CUDA build of it first", file=sys.stderr)
    else:
        wanted = " ".join(f"'{line}'" for line in found)
        print(
            f"gpu: missing packages (torch stays as it is): {sys.executable} -m pip install {wanted}", file=sys.stderr
        )
    return 1


if __name__ == "__main__":
    sys.exit(main())
