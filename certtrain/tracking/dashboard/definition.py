"""Both pages of a project, made of the same sections: the workspace that follows its runs, the report that explains."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from certtrain.tracking.dashboard.charts import CHARTS
from certtrain.tracking.dashboard.panels import CERTIFIED, NATURAL, Section, sections, title_of

WORKSPACE, REPORT = "certtrain", "Certified training: accuracy, smoothing, verifiers, cost"
# Columns of the workspace's table of runs.
COLUMNS = (
    *("summary:" + name for name in (NATURAL, CERTIFIED, "train_seconds")),
    *(f"config:{name}.value" for name in ("data", "model", "loss", "relaxation", "method", "eps", "sigma")),
    *(f"config:{name}.value" for name in ("population_size", "seed")),
)
# The report's grid has 24 columns; a panel is a third of it.
WIDE, HIGH, ACROSS = 8, 6, 3


@dataclass(frozen=True)
class Definition:
    """What is published.

    Attributes:
        sections: What is shown.
        workspace: One of its pages.
        report: The other.
    """

    sections: tuple[Section, ...]
    workspace: ws.Workspace
    report: wr.Report

    def as_json(self) -> str:
        """What W&B would be sent, by the library's own serialisation, and the charts that panels refer to."""
        whole = {
            "workspace": self.workspace._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"),
            "report": self.report._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"),
            "charts": {chart.name: chart.spec for chart in CHARTS},
        }
        return json.dumps(whole, indent=2)

    def outline(self) -> list[str]:
        """Sections and panels as lines of Markdown."""
        lines = []
        for section in self.sections:
            lines += [f"- **{section.name}**"]
            lines += [f"    - {title_of(panel)} ({type(panel).__name__})" for panel in section.panels]
        return lines


def define(entity: str, project: str) -> Definition:
    """The pages of a project.

    Args:
        entity: Who owns it.
        project: Its name.
    """
    return Definition(sections(entity), _workspace(entity, project), _report(entity, project))


def view_name(name: str) -> str:
    """Under which name W&B keeps a workspace: it follows from the title, so that the same title is found again."""
    return f"nw-{sha256(name.encode()).hexdigest()[:11]}-v"


def _workspace(entity: str, project: str) -> ws.Workspace:
    page = ws.Workspace(
        entity=entity,
        project=project,
        name=WORKSPACE,
        sections=[
            ws.Section(name=section.name, panels=list(section.panels), is_open=True) for section in sections(entity)
        ],
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(pinned_columns=["run:displayName", *COLUMNS]),
    )
    page._internal_name = view_name(WORKSPACE)
    return page


def _report(entity: str, project: str) -> wr.Report:
    blocks: list[Any] = [
        wr.P("Written by `python -m certtrain dashboard`, which brings it up to date: changes by hand are lost."),
        wr.TableOfContents(),
    ]
    for section in sections(entity):
        for number, panel in enumerate(section.panels):
            row, column = divmod(number, ACROSS)
            panel.layout = wr.Layout(x=WIDE * column, y=HIGH * row, w=WIDE, h=HIGH)
        runs = wr.Runset(name="all runs")
        runs._id = sha256(section.name.encode()).hexdigest()[:11]
        blocks += [wr.H2(section.name), wr.P(section.text), wr.PanelGrid(runsets=[runs], panels=list(section.panels))]
    return wr.Report(entity=entity, project=project, title=REPORT, width="fluid", blocks=blocks)
