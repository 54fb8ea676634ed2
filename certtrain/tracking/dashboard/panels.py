"""What the project's pages show, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import wandb_workspaces.reports.v2 as wr

from certtrain.tracking.dashboard.charts import HEAT_MAP, WATERFALL
from certtrain.tracking.results import FAILED, POINT, STAGES

NATURAL, CERTIFIED, ATTACKED = "natural_accuracy", "certified_accuracy", "attacked_accuracy"
SETTING = "setting"
# Low is dark blue, high is yellow, as in the heat maps.
GRADIENT = (("#440154", 0), ("#21918c", 50), ("#fde725", 100))
# Of the default verifiers, tightest last.
VERIFIERS = ("ibp", "hbox", "zonotope", "crown_ibp", "deeppoly")
STATUSES = ("misclassified", "falsified", "verified", "unknown", "timeout", "oom", "error")


@dataclass(frozen=True)
class Section:
    """Panels under a heading.

    Attributes:
        name: The heading.
        text: What there is to see, in a sentence.
        panels: In reading order.
    """

    name: str
    text: str
    panels: Sequence[Any]


def sections(entity: str) -> tuple[Section, ...]:
    """All of them.

    Args:
        entity: Who owns the charts.
    """
    return (
        _accuracy(),
        _smoothing(entity),
        _search(),
        _training(),
        _estimates(),
        _verifiers(entity),
        _cost(),
    )


def _accuracy() -> Section:
    return Section(
        "Accuracy by relaxation × method",
        "Mean and standard deviation over the runs of a setting; certified is what some verifier proved.",
        _named(
            _bars("Certified accuracy", CERTIFIED),
            _bars("Natural accuracy", NATURAL),
            wr.ScatterPlot(
                title="Natural against certified accuracy",
                x=wr.SummaryMetric(NATURAL),
                y=wr.SummaryMetric(CERTIFIED),
                legend_template="${config:setting}",
            ),
        ),
    )


def _smoothing(entity: str) -> Section:
    return Section(
        "Sigma and population",
        "How much noise on the weights, and how many members pay for it: a cell is the mean of its runs.",
        _named(
            _heat_map(entity, "Certified accuracy, sigma × population", "sigma", "population_size", CERTIFIED),
            _heat_map(entity, "Natural accuracy, sigma × population", "sigma", "population_size", NATURAL),
            _heat_map(entity, "Certified accuracy, relaxation × sigma", "sigma", "relaxation", CERTIFIED),
            wr.ScatterPlot(
                title="Certified accuracy over sigma",
                x=wr.Config("sigma"),
                y=wr.SummaryMetric(CERTIFIED),
                legend_template="${config:setting}",
            ),
        ),
    )


def _search() -> Section:
    column = wr.ParallelCoordinatesPlotColumn
    keys = ("relaxation", "method", "loss", "eps", "sigma", "population_size")
    return Section(
        "Every key against the result",
        "One line per run, from what was set to what came out.",
        _named(
            wr.ParallelCoordinatesPlot(
                title="Settings and accuracies",
                columns=[
                    *(column(metric=wr.Config(key), display_name=key) for key in keys),
                    column(metric=wr.Config("optimizer/lr"), display_name="learning rate", log=True),
                    column(metric=wr.SummaryMetric(NATURAL), display_name="natural"),
                    column(metric=wr.SummaryMetric(CERTIFIED), display_name="certified"),
                ],
                gradient=[wr.GradientPoint(color=color, offset=offset) for color, offset in GRADIENT],
            ),
            wr.ParameterImportancePlot(with_respect_to=CERTIFIED),
        ),
    )


def _training() -> Section:
    return Section(
        "Training",
        "Validation at the final eps, by the relaxation that trains; the population's loss is its members' mean.",
        _named(
            _lines("Certified accuracy (validation)", ["val/certified_accuracy"]),
            _lines("Natural accuracy (validation)", ["val/natural_accuracy"]),
            _lines("Validation loss", ["val/loss"]),
            _lines("Loss at the centre", ["train/centre_loss"]),
            _lines("Loss of the population", ["train/loss"]),
            wr.LinePlot(
                title="Loss at the centre against the population", y=["train/centre_loss", "train/loss"], log_y=True
            ),
        ),
    )


def _estimates() -> Section:
    return Section(
        "Gradient estimates",
        "A signal-to-noise ratio of about 1 is noise alone.",
        _named(
            wr.LinePlot(title="Signal-to-noise ratio of the gradient", y=["gradient_snr"], log_y=True),
            wr.LinePlot(title="Norm of the gradient", y=["gradient_norm"], log_y=True),
            wr.LinePlot(title="Spread of the members' losses", y=["population/std"], log_y=True),
            wr.LinePlot(title="Length of a step", y=["step_length"], log_y=True),
            wr.LinePlot(title="Sigma", y=["sigma"], log_y=True),
            wr.LinePlot(title="Radius and learning rate", y=["eps", "lr"]),
        ),
    )


def _verifiers(entity: str) -> Section:
    return Section(
        "Verifiers",
        "What each stage settled of the images that it was asked about, and the images that nobody could verify.",
        _named(
            wr.CustomChart(
                query={"summaryTable": {"tableKey": STAGES}},
                chart_name=WATERFALL.id(entity),
                chart_fields={"stage": "stage", "setting": SETTING},
                chart_strings={"title": "What each stage settled"},
            ),
            _several("Certified accuracy by verifier", [f"certified_accuracy_by/{name}" for name in VERIFIERS]),
            _several("Images by status", [f"statuses/{status}" for status in STATUSES]),
            wr.WeavePanelSummaryTable(table_name=FAILED),
            wr.MediaBrowser(title="Margins", media_keys=["pictures/margins"], num_columns=2),
            wr.MediaBrowser(title="Curves", media_keys=["pictures/curves"], num_columns=2),
        ),
    )


def _cost() -> Section:
    return Section(
        "Cost",
        "Seconds of wall-clock time; comparable between runs of one machine.",
        _named(
            _bars("Seconds of training", "train_seconds"),
            _bars("Seconds of certification", "certify_seconds"),
            wr.ScatterPlot(
                title="Certified accuracy over seconds of training",
                x=wr.SummaryMetric("train_seconds"),
                y=wr.SummaryMetric(CERTIFIED),
                log_x=True,
                legend_template="${config:setting}",
            ),
            _lines("Members per second", ["members_per_second"]),
        ),
    )


def _bars(title: str, metric: str) -> Any:
    return wr.BarPlot(
        title=title,
        metrics=[wr.SummaryMetric(metric)],
        groupby=wr.Config(SETTING),
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
    )


def _several(title: str, metrics: Sequence[str]) -> Any:
    return wr.BarPlot(title=title, metrics=[wr.SummaryMetric(metric) for metric in metrics])


def _lines(title: str, metrics: list[Any]) -> Any:
    return wr.LinePlot(
        title=title, y=metrics, groupby=wr.Config(SETTING), groupby_aggfunc="mean", groupby_rangefunc="stddev"
    )


def _heat_map(entity: str, title: str, x: str, y: str, value: str) -> Any:
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": POINT}},
        chart_name=HEAT_MAP.id(entity),
        chart_fields={"x": x, "y": y, "value": value},
        chart_strings={"title": title},
    )


def _named(*panels: Any) -> tuple[Any, ...]:
    """The same panels; their ids follow from what they show, so that the same definition is the same text."""
    return tuple(_with_id(panel, number) for number, panel in enumerate(panels))


def _with_id(panel: Any, number: int) -> Any:
    panel._id = sha256(f"{number} {title_of(panel)}".encode()).hexdigest()[:11]
    return panel


def title_of(panel: Any) -> str:
    """What stands above a panel."""
    if isinstance(panel, wr.CustomChart):
        return str(panel.chart_strings["title"])
    if isinstance(panel, wr.ParameterImportancePlot):
        return f"Importance of each key for {panel.with_respect_to}"
    if isinstance(panel, wr.WeavePanelSummaryTable):
        return f"Table {panel.table_name}"
    return str(panel.title)


@dataclass(frozen=True)
class Keys:
    """Names that panels refer to.

    Attributes:
        history: Of rows, by step.
        summary: Of results.
        config: Of the configuration.
        tables: Table -> its columns that are used.
        media: Of pictures.
    """

    history: frozenset[str]
    summary: frozenset[str]
    config: frozenset[str]
    tables: dict[str, frozenset[str]]
    media: frozenset[str]


def keys_of(shown: Sequence[Section]) -> Keys:
    """All names that the panels of some sections refer to."""
    panels = [panel for section in shown for panel in section.panels]
    metrics = [metric for panel in panels for metric in _metrics(panel)]
    tables: dict[str, frozenset[str]] = {}
    for panel in panels:
        if isinstance(panel, wr.CustomChart):
            name = panel.query["summaryTable"]["tableKey"]
            tables[name] = tables.get(name, frozenset()) | frozenset(panel.chart_fields.values())
        elif isinstance(panel, wr.WeavePanelSummaryTable):
            tables.setdefault(panel.table_name, frozenset())
    media = [key for panel in panels if isinstance(panel, wr.MediaBrowser) for key in panel.media_keys]
    return Keys(
        frozenset(metric for metric in metrics if isinstance(metric, str)),
        frozenset(metric.name for metric in metrics if isinstance(metric, wr.SummaryMetric)),
        frozenset(metric.name for metric in metrics if isinstance(metric, wr.Config)),
        tables,
        frozenset(media),
    )


def _metrics(panel: Any) -> Iterator[Any]:
    match panel:
        case wr.LinePlot():
            yield from panel.y
            yield panel.groupby
        case wr.BarPlot():
            yield from panel.metrics
            yield panel.groupby
        case wr.ScatterPlot():
            yield from (panel.x, panel.y)
        case wr.ParallelCoordinatesPlot():
            yield from (column.metric for column in panel.columns)
        case wr.ParameterImportancePlot():
            yield wr.SummaryMetric(panel.with_respect_to)
