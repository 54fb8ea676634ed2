"""The names of `certtrain`: what the documentation says, before and after they are used."""

import subprocess
import sys

import pytest

import certtrain

SCRIPT = """
import inspect, sys
import certtrain

before = certtrain.certify
assert "torch" in sys.modules
import certtrain.certify
from certtrain.certify import Attack, certify
import certtrain.certify as again
assert certtrain.certify is before is certify is again
assert inspect.isfunction(certtrain.certify)
assert list(inspect.signature(certtrain.certify).parameters)[:4] == ["model", "inputs", "labels", "eps"]
assert certtrain.certify.Attack is Attack
assert certtrain.certify.certifier is sys.modules["certtrain.certify.certifier"]
print(" ".join(name for name in dir(certtrain) if not name.startswith("__")))
"""


def test_certify_is_the_function_also_after_its_package_was_imported():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(certtrain.__all__)


def test_every_documented_name_is_there_and_no_other():
    assert {name for name in dir(certtrain) if not name.startswith("__")} == set(certtrain.__all__)
    assert all(getattr(certtrain, name) is not None for name in certtrain.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        certtrain.nothing  # noqa: B018
