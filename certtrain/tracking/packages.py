"""Packages that not everybody has: named, with what installs them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, Literal

from certtrain.errors import ConfigError

# Package -> what it is installed by.
EXTRAS = {"wandb": "wandb", "wandb_workspaces": "dashboard", "tensorboard": "tensorboard"}


def require(package: str, what: str) -> None:
    """Refuses what needs a package that is missing.

    Args:
        package: As it is imported.
        what: Needs it.

    Raises:
        ConfigError: One line that says how to install it.
    """
    found = find_spec(package)
    if found is None or found.origin is None:  # a folder without code, as W&B leaves one where it wrote runs
        name = package.replace("_", "-")
        raise ConfigError(f'{what} needs the package {name}: pip install "certtrain[{EXTRAS[package]}]"')


def mode() -> Literal["online", "offline", "disabled"]:
    """What the environment tells W&B; asked for each run, since W&B looks once per process."""
    match os.environ.get("WANDB_MODE", "").lower():
        case "offline" | "dryrun":
            return "offline"
        case "disabled":
            return "disabled"
    return "online"


def offline() -> bool:
    """Whether W&B is told to send nothing."""
    return mode() != "online"


def _logged_in(wandb: Any) -> bool:
    """Whether there is a key; the network is not asked."""
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # a version that always prompts, but says what it knows
        return bool(wandb.api.api_key)


def check_login(what: str) -> None:
    """Refuses to send to W&B where nobody is logged in.

    Raises:
        ConfigError: One line that says how to log in, or to do without.
    """
    if offline():
        return
    import wandb

    if not _logged_in(wandb):
        raise ConfigError(f"{what}: not logged in; run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")
