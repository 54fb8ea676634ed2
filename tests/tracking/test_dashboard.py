"""The dashboard's definition survives the library's own serialisation, and its pages are made once."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb_workspaces.reports.v2.interface as reports
import wandb_workspaces.workspaces.interface as workspaces
from wandb_workspaces.reports.v2 import internal as report_models
from wandb_workspaces.workspaces import internal as workspace_models

from certtrain.cli.commands.dashboard import dashboard_command
from certtrain.errors import CerttrainError
from certtrain.tracking.dashboard.definition import REPORT, WORKSPACE, Definition, define
from certtrain.tracking.dashboard.panels import title_of
from certtrain.tracking.dashboard.publish import publish


@pytest.fixture
def definition() -> Definition:
    return define("me", "certtrain")


def dumped(model: Any) -> Any:
    return model.model_dump(by_alias=True, exclude_none=True, mode="json")


def test_the_workspace_is_read_back_as_it_was_written(definition: Definition) -> None:
    written = definition.workspace._to_model()
    spec = workspace_models.WorkspaceViewspec.model_validate_json(
        written.spec.model_dump_json(by_alias=True, exclude_none=True)
    )
    read = workspaces.Workspace._from_model(written.model_copy(update={"spec": spec}))
    assert [section.name for section in read.sections] == [section.name for section in definition.sections]
    assert [len(section.panels) for section in read.sections] == [len(s.panels) for s in definition.sections]
    assert dumped(read._to_model().spec.section.panel_bank_config) == dumped(written.spec.section.panel_bank_config)


def test_the_report_is_read_back_as_it_was_written(definition: Definition) -> None:
    written = definition.report._to_model()
    read = reports.Report._from_model(report_models.ReportViewspec.model_validate(dumped(written)))
    assert read.title == REPORT
    grids = [block for block in read.blocks if isinstance(block, reports.PanelGrid)]
    assert [[type(panel) for panel in grid.panels] for grid in grids] == [
        [type(panel) for panel in section.panels] for section in definition.sections
    ]
    assert dumped(read._to_model())["spec"]["blocks"] == dumped(written)["spec"]["blocks"]


def test_panels_do_not_cover_each_other(definition: Definition) -> None:
    for block in definition.report.blocks:
        if isinstance(block, reports.PanelGrid):
            places = [(panel.layout.x, panel.layout.y) for panel in block.panels]
            assert len(set(places)) == len(places)
            assert all(panel.layout.x + panel.layout.w <= 24 for panel in block.panels)


def test_the_definition_is_printed_without_network_and_always_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    dashboard_command(["me/mine", "--print"])
    text = capsys.readouterr().out
    found = json.loads(text)
    assert (found["workspace"]["entity"], found["workspace"]["project"]) == ("me", "mine")
    assert found["workspace"]["displayName"] == WORKSPACE
    assert found["report"]["displayName"] == REPORT
    names = {name for name in found["charts"] if f"me/{name}" in text}
    assert names == {"certtrain-heat-map", "certtrain-waterfall"}
    for name, spec in found["charts"].items():
        fields = {part.split("}")[0] for part in json.dumps(spec).split("${field:")[1:]}
        given = [panel.chart_fields for panel in charts(define("me", "mine")) if panel.chart_name == f"me/{name}"]
        assert given
        assert all(set(one) == fields for one in given)
    dashboard_command(["me/mine", "--print"])
    assert capsys.readouterr().out == text


def test_its_layout_can_be_drawn(tmp_path: Path) -> None:
    dashboard_command(["--picture", str(tmp_path / "layout.png")])
    assert (tmp_path / "layout.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(CerttrainError, match="must be a file that ends in .png or .svg"):
        dashboard_command(["--picture", str(tmp_path / "layout.txt")])


def charts(definition: Definition) -> list[Any]:
    panels = [panel for section in definition.sections for panel in section.panels]
    return [panel for panel in panels if isinstance(panel, reports.CustomChart)]


def test_the_outline_names_every_panel(capsys: pytest.CaptureFixture[str], definition: Definition) -> None:
    dashboard_command(["--outline"])
    lines = capsys.readouterr().out
    assert all(title_of(panel) in lines for section in definition.sections for panel in section.panels)


@pytest.mark.parametrize("name", ["a/b/c", "/x", "x/"])
def test_what_is_no_project_is_refused(name: str) -> None:
    with pytest.raises(CerttrainError, match=f"'{name}' is no project: it is written entity/project, or project"):
        dashboard_command([name])


class Server:
    """W&B, as far as the two pages and their charts are concerned."""

    def __init__(self) -> None:
        self.views: dict[str, dict[str, Any]] = {}
        self.charts: set[str] = set()
        self.made: list[str] = []
        self.client = SimpleNamespace(app_url="https://wandb.test")

    def __call__(self, api: Any, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" not in query:
            found = [v for v in self.views.values() if v["name"] == given["viewName"]]
            return {"project": {"allViews": {"edges": [{"node": v} for v in found]}}}
        known = given.get("id") or f"view{len(self.views)}"
        inserted = known not in self.views
        project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
        kept = {key: given[key] for key in ("name", "displayName", "description", "spec")}
        self.views[known] = {**kept, "id": known, "project": project, "type": given["type"]}
        return {"upsertView": {"view": {**self.views[known], "updatedAt": None}, "inserted": inserted}}

    def projects(self, entity: str) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self.made]

    def create_project(self, name: str, entity: str) -> None:
        self.made.append(name)

    def create_custom_chart(self, entity: str, name: str, *others: Any) -> str:
        from wandb.errors import CommError

        if name in self.charts:
            raise CommError("a chart of this name already exists")
        self.charts.add(name)
        return f"{entity}/{name}"

    def reports(self, path: str) -> list[Any]:
        found = [view for view in self.views.values() if view["type"] == "runs"]
        return [SimpleNamespace(id=view["id"], display_name=view["displayName"]) for view in found]


def test_the_same_pages_are_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    for module in (workspace_models, reports):
        monkeypatch.setattr(module, "execute_graphql", server)
    monkeypatch.setattr("wandb.Api", lambda *_, **__: server)
    for module in (workspaces, reports):
        monkeypatch.setattr(module, "get_app_url", lambda api: "https://wandb.test")
    monkeypatch.setattr(workspace_models, "validate_spec_version", lambda *_, **__: None)
    first = publish(define("me", "certtrain"), server)  # type: ignore[arg-type]
    assert first.updated == ()
    again = publish(define("me", "certtrain"), server)  # type: ignore[arg-type]
    assert again.updated == ("workspace", "report")
    assert (again.workspace, again.report) == (first.workspace, first.report)
    assert len(server.views) == 2
    assert server.made == ["certtrain"]
    assert first.workspace.startswith("https://wandb.test/me/certtrain?nw=")


def test_the_documentation_lists_what_there_is(definition: Definition) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "wandb.md"
    listed = page.read_text(encoding="utf-8").split("<!-- outline -->")[1].split("<!-- end -->")[0]
    assert listed.strip().splitlines() == definition.outline()
