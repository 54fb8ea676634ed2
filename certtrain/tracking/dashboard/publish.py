"""Creates a project's pages, or brings those of the same name up to date."""

from __future__ import annotations

from dataclasses import dataclass

import wandb
from wandb.errors import CommError, UsageError
from wandb_workspaces.workspaces import internal

from certtrain.errors import ConfigError, one_line
from certtrain.tracking.dashboard.charts import CHARTS
from certtrain.tracking.dashboard.definition import Definition


@dataclass(frozen=True)
class Published:
    """Where the pages are.

    Attributes:
        workspace: Its address.
        report: Its address.
        updated: Which of the two were there before.
    """

    workspace: str
    report: str
    updated: tuple[str, ...]


def publish(definition: Definition, api: wandb.Api) -> Published:
    """Writes both pages and the charts that they use.

    The workspace is found by the name under which W&B keeps it, which follows from its title; the report by its title.
    Nothing is remembered on this machine, so that whoever of a team calls this updates the same pages.

    Args:
        definition: The pages.
        api: Logged in.

    Raises:
        ConfigError: One line about what W&B refuses.
    """
    workspace, report = definition.workspace, definition.report
    updated = []
    try:
        if not any(project.name == workspace.project for project in api.projects(workspace.entity)):
            api.create_project(workspace.project, workspace.entity)
        for chart in CHARTS:
            _create_chart(api, workspace.entity, chart.name, chart.title, dict(chart.spec))
        if (known := _known_workspace(workspace.entity, workspace.project, workspace._internal_name)) is not None:
            workspace._internal_id = known
            updated.append("workspace")
        workspace.save()
        if (known := _known_report(api, f"{report.entity}/{report.project}", report.title)) is not None:
            report.id = known
            updated.append("report")
        report.save()
    except (CommError, UsageError) as error:
        raise ConfigError(f"dashboard: {one_line(error)}") from error
    return Published(workspace.url, report.url, tuple(updated))


def _create_chart(api: wandb.Api, entity: str, name: str, title: str, spec: dict[str, object]) -> None:
    """Creates a chart; one of this name stays as it is."""
    try:
        api.create_custom_chart(entity, name, title, "vega2", "private", spec)
    except (CommError, wandb.Error) as error:
        if "exist" not in str(error).lower() and "duplicate" not in str(error).lower():
            raise


def _known_workspace(entity: str, project: str, name: str) -> str | None:
    try:
        return str(internal.get_view_dict(entity, project, internal._internal_name_to_url_query_str(name))["id"])
    except ValueError:  # there is none
        return None


def _known_report(api: wandb.Api, path: str, title: str) -> str | None:
    return next((str(report.id) for report in api.reports(path) if report.display_name == title), None)
