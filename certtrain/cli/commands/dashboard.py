"""`python -m certtrain dashboard`: the W&B workspace and report of a project, as code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from certtrain.cli.configuration.parser import Parser
from certtrain.errors import ConfigError

# Stands for the owner of the project where nobody is asked.
SOMEBODY = "entity"


def dashboard_command(arguments: list[str]) -> None:
    """Creates a project's pages or brings them up to date; or prints what they are made of.

    Args:
        arguments: What follows `dashboard` on the command line.

    Raises:
        ConfigError: If the project's name is none, a package is missing, or W&B refuses.
    """
    parser = Parser(
        prog="python -m certtrain dashboard",
        description="Creates a workspace and a report in a W&B project: accuracies by relaxation and method, heat maps "
        "of sigma and population, parallel coordinates, training and gradient estimates, verifiers, cost. Pages of the "
        "same name are brought up to date.",
    )
    parser.add_argument("project", nargs="?", default="", help="entity/project, or project; default: certtrain")
    parser.add_argument("--print", action="store_true", help="writes the definition as JSON instead; needs no network")
    parser.add_argument("--outline", action="store_true", help="writes sections and panels as a list instead, likewise")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draws where panels stand instead, likewise")
    asked = parser.parse_args(arguments)
    if asked.picture is not None and asked.picture.suffix not in (".png", ".svg"):
        raise ConfigError(f"dashboard: --picture {asked.picture} must be a file that ends in .png or .svg")
    from certtrain.tracking.packages import check_login, offline, require

    entity, project = _split(asked.project)
    require("wandb", "dashboard")
    require("wandb_workspaces", "dashboard")
    if asked.picture is not None:
        from certtrain.tracking.dashboard.figure import write_layout

        print(f"written: {write_layout(_define(entity or SOMEBODY, project).sections, asked.picture)}")
        return
    if asked.print or asked.outline or offline():
        definition = _define(entity or SOMEBODY, project)
        sys.stdout.write("\n".join(definition.outline()) + "\n" if asked.outline else definition.as_json() + "\n")
        return
    check_login("dashboard")
    _publish(entity, project)


def _split(name: str) -> tuple[str | None, str]:
    parts = name.split("/") if name else []
    if len(parts) > 2 or not all(parts):
        raise ConfigError(f"dashboard: '{name}' is no project: it is written entity/project, or project")
    project = parts[-1] if parts else os.environ.get("WANDB_PROJECT") or "certtrain"
    return parts[0] if len(parts) == 2 else os.environ.get("WANDB_ENTITY"), project


def _define(entity: str, project: str) -> Any:
    from certtrain.tracking.dashboard.definition import define

    return define(entity, project)


def _publish(entity: str | None, project: str) -> None:
    import wandb

    from certtrain.tracking.dashboard.publish import publish

    os.environ.setdefault("WANDB_SILENT", "true")
    api = wandb.Api()
    owner = entity or api.default_entity
    if not owner:
        raise ConfigError("dashboard: the account has no default entity: name it, as in entity/project")
    done = publish(_define(owner, project), api)
    for name, address in (("workspace", done.workspace), ("report", done.report)):
        print(f"{name} {'updated' if name in done.updated else 'created'}: {address}")
