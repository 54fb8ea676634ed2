"""What is imported before the first step: nothing that only few runs need."""

import subprocess
import sys

HEAVY = ("scipy", "matplotlib", "sklearn", "datasets", "pyarrow", "pandas", "wandb", "jinja2", "torchvision")
# What commands that only compose and show are made of.
SHOWING = "certtrain.cli.commands.show, certtrain.cli.help.reference, certtrain.cli.job.launch"
SCRIPT = f"""
import sys
import {SHOWING}
print("torch" in sys.modules)
from certtrain.cli.process.imports import import_torchmetrics
import_torchmetrics()
import certtrain.cli.job.preflight, certtrain.cli.job.entry
print([name for name in {HEAVY} if name in sys.modules])
import matplotlib.pyplot, scipy.signal
from lightning_utilities.core.imports import RequirementCache, package_available
print(package_available("scipy"), bool(RequirementCache("matplotlib")))
import_torchmetrics()
"""


def test_a_run_imports_nothing_early_that_it_may_not_need() -> None:
    """What only shows needs no torch. Afterwards everything is there as ever."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "[]", "True True"]
