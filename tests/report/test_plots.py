"""The training record and its plots: any subset of quantities, margins of any size."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from pictures import check_layout, cut_off, outside, overlaps, points
from report.fakes import PNG, verdict

from certtrain.errors import DataError
from certtrain.report import write_curves, write_margins
from certtrain.report.curves import draw_curves
from certtrain.report.margins import draw_margins
from certtrain.report.metrics import Series, read_metrics, running_mean
from certtrain.report.style import drawing, figure


def test_metrics_are_read_as_columns(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        '{"step": 1, "a": 1.0}',
        '{"step": 3, "a": null, "b": 2}',
        '{"step": 1, "a": 5.0}',
        '{"step": 4, "a"',
    ]
    path.write_text("\n".join(lines))
    found = read_metrics(path)
    assert found["a"].steps == (1.0, 3.0)
    assert found["a"].values[0] == 5.0
    assert found["a"].values[1] != found["a"].values[1]
    assert found["b"].values == (2.0,)
    assert read_metrics(tmp_path / "missing.jsonl") == {}


@pytest.mark.parametrize("line", ["{", "[1]", '{"a": 1}', '{"step": NaN, "a": 1}'])
def test_damaged_metrics_are_told(tmp_path: Path, line: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(DataError, match="line 2"):
        read_metrics(path)


def test_metrics_that_are_no_text_are_told(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"metrics.jsonl is no text"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_running_mean_leaves_gaps_out():
    assert running_mean([1.0, float("nan"), 3.0, 5.0], 3) == [1.0, 2.0, 4.0, 4.0]


def record(**columns: dict[int, float | None]) -> dict[str, Series]:
    """Quantities with two underscores for the stroke, each step -> value."""
    return {
        key.replace("__", "/"): Series(
            tuple(map(float, values)), tuple(math.nan if v is None else v for v in values.values())
        )
        for key, values in columns.items()
    }


def panel(canvas: Figure, title: str) -> Any:
    return next(ax for ax in canvas.axes if ax.get_title(loc="left") == title)


def legend(ax: Any) -> list[str]:
    return [] if ax.get_legend() is None else [text.get_text() for text in ax.get_legend().get_texts()]


def test_curves_show_what_was_logged() -> None:
    canvas = draw_curves(
        record(
            train__loss={0: 2.0, 10: 1.0, 20: None},
            val__loss={10: 1.5},
            val__natural_accuracy={10: 0.5, 20: 0.75},
            lr={0: 0.1, 20: 0.0},
            unknown={0: 1.0},
            eps={0: None},
        ),
        "the title",
    )
    assert [ax.get_title(loc="left") for ax in canvas.axes] == ["Loss", "Accuracy", "Learning rate"]
    assert canvas.get_suptitle() == "the title"
    loss, accuracy, rate = canvas.axes
    assert [points(line) for line in loss.get_lines()] == [[(0, 2), (10, 1)], [(10, 1.5)]]
    assert legend(loss) == ["training", "validation"]
    assert [points(line) for line in accuracy.get_lines()] == [[(10, 50), (20, 75)]]
    assert legend(accuracy) == [], "one line needs no legend"
    assert accuracy.get_ylabel() == "% of validation images"
    assert accuracy.get_ylim() == (48.5, 76.5), "no more than its values need: one point is seen"
    assert (rate.get_ylabel(), rate.get_xlabel()) == ("learning rate", "optimizer step")
    assert rate.get_ylim()[0] == 0
    check_layout(canvas)


def test_many_points_are_drawn_with_their_running_mean() -> None:
    values = {step: 1e3 / (step + 1) for step in range(400)}
    ax = panel(draw_curves(record(train__loss=values, lr=values), "title"), "Loss")
    single, mean = ax.get_lines()
    assert points(single) == [(step, pytest.approx(value)) for step, value in values.items()]
    assert [y for _, y in points(mean)] == pytest.approx(running_mean(list(values.values()), 8))
    assert ax.get_yscale() == "log"
    rate = panel(draw_curves(record(lr=values), "title"), "Learning rate")
    assert len(rate.get_lines()) == 1, "a schedule has no noise"
    assert rate.get_yscale() == "linear"


LONG = "trained with deeppoly (auto_lirpa, lower_slope=zero, intersect=false), pgpe, eps 0.0313725"
WAVES = {"lr": 1e-5, "eps": 0.0, "gradient_norm": 1e6, "sigma": 0.05, "population__std": 1e-8}


@pytest.mark.parametrize("last", [0, 1, 3, 100, 12345, 5_000_000])
def test_curves_have_room_for_everything(last: int) -> None:
    """Also for a single step, long numbers and a long title."""
    steps = sorted({round(last * i / 200) for i in range(201)})
    columns = {key: {s: top * (1.5 + math.sin(s)) for s in steps} for key, top in WAVES.items()}
    columns |= {f"val__{name}_accuracy": {s: s / max(last, 1) for s in steps} for name in ("natural", "certified")}
    columns |= {"members_per_second": {s: 1e9 * s for s in steps}, "val__loss": {s: 1e3 / (s + 1) for s in steps}}
    canvas = draw_curves(record(train__loss=dict.fromkeys(steps, 2.0), **columns), LONG)
    assert len(canvas.axes) == 8
    check_layout(canvas)
    for ax in canvas.axes:
        left, right = ax.get_xlim()
        assert left < 0 <= last < right, "points at the ends are not cut in halves"
        assert all(tick == round(tick) for tick in ax.get_xticks()), "there are whole steps only"


def test_curves_are_written(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 0, "train/loss": 1.0}\n{"step": 1, "train/loss": 0.5}\n')
    png = write_curves(metrics, tmp_path / "curves.png", "title")
    assert png is not None
    assert png.read_bytes().startswith(PNG)


def test_no_curves_without_quantities(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": null}\n')
    assert write_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "title") is None
    assert not (tmp_path / "curves.png").exists()


def bars(ax: Any, left_of_zero: bool) -> float:
    """Images that the bars on one side of zero stand for."""
    return sum(bar.get_height() for bar in ax.patches if (bar.get_x() + bar.get_width() / 2 < 0) == left_of_zero)


MARGINS = [
    *([0.5, -0.2], [0.5, -1e9], [0.5], [-0.5], [-1e9, -1.0], [0.0], [0.0, 1e-300], [1e30, -1e-30]),
    *([-1.0, 0.0, 0.0, 1.0], [-3.0, -2.0, -1.0], [1e-9, -1e-9], [-1.5] * 900 + [1.0] * 20),
]


@pytest.mark.parametrize("margins", MARGINS)
def test_margins_of_any_size(margins: list[float]):
    """Every image is in a bar that is wide enough to see, on the side of zero that says whether it is certified."""
    canvas = draw_margins([verdict(i, "unknown", m, None) for i, m in enumerate(margins)], "title")
    (ax,) = canvas.axes
    certified = sum(m > 0 for m in margins)
    assert (bars(ax, False), bars(ax, True)) == (certified, len(margins) - certified)
    left, right = ax.get_xlim()
    assert left < 0 < right
    for bar in ax.patches:
        if bar.get_height():
            assert left <= bar.get_x() < bar.get_x() + bar.get_width() <= right
            assert bar.get_width() > (right - left) / 200
    images = "1 image" if len(margins) == 1 else f"{len(margins)} images"
    assert ax.get_title(loc="left").startswith(f"ibp: certified {certified} of {images}")
    assert all(tick == round(tick) for tick in ax.get_yticks()), "there are whole images only"
    check_layout(canvas)


def test_verifiers_share_an_axis_and_far_misses_are_gathered() -> None:
    verdicts = [verdict(i, "unknown", -300.0 - i, 1.0 if i % 2 else -1.0) for i in range(10)]
    canvas = draw_margins([*verdicts, verdict(10, "misclassified")], LONG)
    loose, tight = canvas.axes
    assert loose.get_title(loc="left") == "ibp: certified 0 of 11 images (leftmost bar: 10 below the axis)"
    assert tight.get_title(loc="left") == "deeppoly: certified 5 of 11 images"
    assert loose.get_xlim() == tight.get_xlim()
    assert loose.get_xlim()[0] > -2, "certified images are what is looked at"
    assert (loose.patches[0].get_height(), bars(loose, True)) == (10, 10)
    assert loose.get_ylim() == tight.get_ylim() == (0, pytest.approx(1.15 * 5))
    assert [line.get_xdata()[0] for line in loose.get_lines()] == [0], "the line at 0"
    assert (loose.get_ylabel(), loose.get_xlabel()) == ("images", "")
    assert tight.get_xlabel().endswith("an image right of 0 is certified")
    check_layout(canvas)


def test_a_bar_that_gathers_nothing_is_not_cut() -> None:
    canvas = draw_margins([verdict(i, "unknown", -1.0 if i else 1.0, None) for i in range(50)], "title")
    assert canvas.axes[0].get_ylim()[1] > 49


def test_margins_are_written(tmp_path: Path):
    png = write_margins([verdict(0, "verified", 0.5, 0.1)], tmp_path / "margins.png", "title")
    assert png is not None
    assert png.read_bytes().startswith(PNG)
    assert write_margins([verdict(0, "misclassified")], tmp_path / "none.png", "title") is None
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("width", [2.0, 3.7, 7.4])
def test_long_titles_are_broken_into_lines(width: float):
    with drawing():
        canvas, _ = figure(1, 1, LONG, (width, 2.0))
    assert canvas.get_suptitle().split() == LONG.split()
    check_layout(canvas)


def test_what_is_ugly_is_found() -> None:
    """Texts over each other, texts that are cut off and points beside their axes."""
    with drawing():
        canvas, (ax,) = figure(1, 1, "title", (4.0, 3.0))
        ax.plot([0, 1, 2], [0, 1, 5])
        ax.set(xlim=(0, 1.5), ylim=(0, 1))
        ax.text(0.5, 0.5, "first")
        ax.text(0.5, 0.52, "second")
        canvas.text(0.98, 0.5, "too long")
    assert ("first", "second") in overlaps(canvas)
    assert cut_off(canvas) == ["too long"]
    assert [(x, y) for _, x, y in outside([ax])] == [(2, 5)]


def test_where_others_were_asked_first_margins_are_of_what_these_left():
    left = [verdict(i, "unknown", -0.1, m) for i, m in enumerate((0.5, -0.5))]
    early = replace(verdict(2, "verified", 0.5), margins={"ibp": 0.5})
    canvas = draw_margins([replace(v, cascade="first") for v in (*left, early, verdict(3, "misclassified"))], "title")
    assert [ax.get_title(loc="left") for ax in canvas.axes] == [
        "ibp: certified 1 of the 3 images that it judged",
        "deeppoly: certified 1 of the 2 images that it judged",
    ]
