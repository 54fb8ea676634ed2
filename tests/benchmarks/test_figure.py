"""The picture of the benchmarks, drawn from numbers that nobody measured."""

from pathlib import Path

import pytest
from pictures import check_layout, points

from benchmarks.bounds import BoundRow
from benchmarks.certify import SearchRow
from benchmarks.figure import draw, picture
from benchmarks.peak import OperationRow
from benchmarks.scaling import ScalingRow
from benchmarks.timing import Comparison, Spread


def spread(median: float) -> Spread:
    return Spread(median, 0.8 * median, 1.3 * median, 5)


def bound(network: str, batch: int, method: str, grad: bool, ratio: float) -> BoundRow:
    times = Comparison(spread(1.0), spread(ratio), spread(ratio))
    return BoundRow(network, "random", batch, method, grad, times, None)


BOUNDS = [
    bound(network, 16, method, grad, ratio * (2 if grad else 1))
    for network, scale in (("mlp", 0.3), ("cnn3", 5.0), ("cnn7", 80.0))
    for method, ratio in (("ibp", scale), ("crown_ibp", 3 * scale), ("deeppoly", 4 * scale))
    for grad in (False, True)
]
RESULTS = {
    "bounds": BOUNDS,
    "operations": [
        OperationRow("mlp", "random", 16, m, 1.0, spread(1.0), 10.0, s) for m, s in (("ibp", 0.1), ("b", 1))
    ],
    "batches": [
        bound("cnn3", b, m, g, 3 + b / 64) for b in (1, 16, 256) for m in ("ibp", "deeppoly") for g in (False, True)
    ],
    "scaling": [
        ScalingRow("width", "cnn3/16", (1, 2, 4), (spread(1.0), spread(2.0), spread(5.0)), 1.2),
        ScalingRow("depth", "mlp/16", (2, 8), (spread(0.5), spread(8.0)), 2.0),
    ],
    "certify": [
        SearchRow(f"mnist_256x{n}", eps, 15, 2, 1, 0, 20.0, 900, 30.0, (0.1, 0.3, 5.0 * n))
        for n in (2, 4)
        for eps in (0.03, 0.05)
    ],
}


def test_a_panel_for_everything_that_was_measured() -> None:
    canvas = picture(RESULTS, "a machine with a long name " * 8)
    bounds, operations, batches, scaling, settled = canvas.axes
    assert canvas.get_suptitle().split() == ("a machine with a long name " * 8).split()
    labels = [label.get_text() for label in bounds.get_yticklabels()]
    assert labels[0] == "mlp/16 random: ibp"
    assert len(labels) == len(BOUNDS) / 2
    for bars, grad in zip(bounds.containers[1::2], (False, True), strict=True):
        lengths = [bar.get_x() + bar.get_width() for bar in bars]
        assert lengths == pytest.approx([row.times.ratio.median for row in BOUNDS if row.grad == grad])
    assert [text.get_text() for text in bounds.texts][-1] == "640", "no powers of ten"
    assert [text.get_text() for text in bounds.get_legend().get_texts()] == ["bounds alone", "with gradients"]
    assert [bar.get_width() for bar in operations.patches] == pytest.approx([10, 100])
    assert points(batches.get_lines()[0]) == [(1, 3 + 1 / 64), (16, 3.25), (256, 7.0)]
    assert [tick.get_text() for tick in batches.get_xticklabels()] == ["1", "16", "256"]
    assert [points(line) for line in scaling.get_lines()] == [[(1, 1), (2, 2), (4, 5)], [(1, 1), (4, 16)]]
    assert points(settled.get_lines()[0]) == [(0.1, 1 / 15), (0.3, 2 / 15), (10.0, 0.2), (20.0, 0.2)]
    check_layout(canvas)


@pytest.mark.parametrize("name", RESULTS)
def test_each_panel_alone(name: str) -> None:
    canvas = picture({name: RESULTS[name][:1]}, "title")
    assert len(canvas.axes) == 1
    check_layout(canvas)


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert draw({"bounds": []}, "title", tmp_path / "none.png") is None
    assert list(tmp_path.iterdir()) == []
    assert draw(RESULTS, "title", tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
