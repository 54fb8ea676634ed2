"""What the page of a study says: every number with who trained and who certified, and whatever is missing by name."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report.fakes import verdict
from report.full import IMAGES, full_run, verdicts
from report.runs import run

from certtrain.cli.commands.report import ReportOptions, report_command, write
from certtrain.cli.help.presets import presets
from certtrain.errors import CerttrainError
from certtrain.report.collect import collect
from certtrain.report.metrics import Series
from certtrain.report.page.charts import spread
from certtrain.report.page.entries import arenas_of, drawn, entries_of
from certtrain.report.page.gallery import chosen, gallery, keep_images
from certtrain.report.page.heat import heat_maps
from certtrain.report.page.material import read_material
from certtrain.report.page.published import all_published, published_for
from certtrain.report.page.render import breakable
from certtrain.report.page.svg import inline
from certtrain.report.page.training import thinned
from certtrain.report.page.waterfall import waterfall
from certtrain.report.style import BLUE


@pytest.fixture(scope="module")
def text(full_page: Path) -> str:
    """What stands on the page of the study, without tags."""
    page = full_page.read_text(encoding="utf-8")
    assert len(page) < 1e6
    return re.sub(r"\s+", " ", re.sub(r"<wbr>|<[^>]*>", " ", page).replace("\xa0", " "))


@pytest.fixture(scope="module")
def study(full_page: Path) -> Path:
    return full_page.parent


def found(words: str, text: str) -> bool:
    """Whether words stand in a text, wherever lines break."""
    return re.sub(r"\s", "", words) in re.sub(r"\s", "", text)


def test_the_page_says_what_is_best_and_who_certified_it(text: str):
    best = "Most certified on digits, eps 0.05, 20 test images: E (deeppoly, pgpe, sigma 0.01), 55.00 %"
    assert found(f"{best} certified by any of ibp, deeppoly, with 90.00 % natural accuracy", text)
    assert found("52.50 ± 3.54", text)
    assert found("trained with ibp and deeppoly, gradients by grad and pgpe", text)
    assert found("python -m certtrain seed=1", text)
    assert found("commit abc1234", text)


def test_what_is_missing_is_named(study: Path, text: str):
    assert found("ValueError: &lt;b&gt;boom&lt;/b&gt;", text), "the last line of its traceback, as text"
    assert found("relaxation=hbox failed", text)
    assert found("after 40 steps of training", text)
    assert found("seed=99 not run the sweep did not get to it", text)
    assert found(f"left out: {study / 'broken' / '0' / 'summary.json'} is no summary", text)


def test_settings_of_other_verifiers_are_never_compared(tmp_path: Path):
    for i, verifiers in enumerate((["ibp"], ["ibp", "deeppoly"])):
        by = dict.fromkeys(verifiers, 0.2 + 0.1 * i)
        run(tmp_path, "grad", "ibp", 0, 0.5, {"certified_accuracy_by": by}, certify__verifiers=verifiers)
        run(tmp_path, "grad", "deeppoly", 0, 0.6, {"certified_accuracy_by": by}, certify__verifiers=verifiers)
    entries = entries_of(collect([tmp_path]), read_material)
    arenas = arenas_of(entries)
    assert {arena.verifiers for arena in arenas} == {("ibp",), ("ibp", "deeppoly")}
    assert [len(arena.entries) for arena in arenas] == [2, 2]
    page = write([tmp_path], ReportOptions(images=0)).read_text(encoding="utf-8")
    assert page.count('aria-label="Certified over natural accuracy') == 2
    assert "certified by different verifiers" in page


def test_curves_that_different_relaxations_certified_share_no_chart(full_page: Path):
    charts = re.findall(r'aria-label="(Validation: certified[^"]*)"', full_page.read_text(encoding="utf-8"))
    assert charts == [f"Validation: certified by {name} (%) over optimizer step" for name in ("ibp", "deeppoly")]


def test_names_leave_out_what_follows(study: Path):
    entries = entries_of(collect([study / "sweep"]), read_material)
    names = [entry.look.name for entry in entries]
    assert names[:2] == ["ibp, grad", "ibp, pgpe, sigma 0.01"], "optimizer.lr follows from the method"
    assert len({entry.look.letter for entry in entries}) == len(entries)
    kinds = {(entry.look.marker, entry.look.dash) for entry in entries}
    assert len(kinds) == len(entries), "told apart without colour"
    kept = [(entry.group.setting["relaxation.name"], entry.group.setting["method"]) for entry in drawn(entries, 4)]
    assert sorted(kept) == [("deeppoly", "grad"), ("deeppoly", "pgpe"), ("ibp", "grad"), ("ibp", "pgpe")]


def test_heat_maps_show_the_best_of_a_cell(study: Path):
    collection = collect([study / "sweep"])
    (maps,) = [
        heat_maps(arena.entries, collection.keys.columns) for arena in arenas_of(entries_of(collection, read_material))
    ]
    methods, sigmas = maps
    assert (methods.down, methods.across, methods.columns) == ("relaxation.name", "method", ("grad", "pgpe"))
    name, cells = methods.rows[1]
    assert name == "deeppoly"
    assert [(cell.percent, cell.settings) for cell in cells] == [(pytest.approx(52.5), 1), (pytest.approx(55), 2)]
    assert (sigmas.across, sigmas.columns) == ("pgpe.sigma", ("0.01", "0.1"))


def test_a_waterfall_counts_each_image_once_where_it_was_settled_first():
    parts = waterfall(verdicts(10))
    assert [(part.images, part.what) for part in parts] == [
        (2, "misclassified"),
        (3, "falsified by attack"),
        (5, "proved by ibp"),
        (5, "proved by deeppoly"),
        (5, "left open"),
    ]
    assert sum(part.share for part in parts) == pytest.approx(100)
    assert waterfall([]) == []
    failed = [verdict(0, "timeout", -1.0, None), verdict(1, "error", -1.0, None, message="deeppoly: boom")]
    assert [part.what for part in waterfall(failed)] == ["failed", "out of time"]


def test_the_gallery_takes_what_came_nearest():
    shown = chosen(verdicts(10), 6)
    assert [(one.index, one.status) for one in shown] == [
        *((2, "falsified"), (3, "falsified")),
        *((15, "unknown"), (16, "unknown")),
        *((6, "verified"), (8, "verified")),
    ]
    assert len(chosen(verdicts(0), 100)) == 18, "the misclassified ones need no proof"
    assert chosen([], 3) == []


def test_pictures_are_of_the_judged_images_only(tmp_path: Path):
    directory = full_run(tmp_path, "grad", "ibp", 0, 8)
    ledger, judged = directory / "ledger.jsonl", verdicts(8)
    without = gallery(ledger, judged, None, 3)
    assert [(one.original, one.difference) for one in without] == [(None, None)] * 3
    assert without[0].counterexample is not None, "it is stored with the ledger"
    keep_images(ledger, judged, lambda index: IMAGES[index])
    falsified, unknown, proved = gallery(ledger, judged, None, 3)
    assert all(one.original.startswith("data:image/png;base64,") for one in (falsified, unknown, proved))
    assert falsified.difference is not None
    assert falsified.factor == pytest.approx(20)
    assert (unknown.counterexample, proved.margin) == (None, "+0.06 by deeppoly")
    others = [replace(one, image="0" * 16) for one in judged]
    assert [one.original for one in gallery(ledger, others, lambda index: IMAGES[index], 3)] == [None] * 3
    (directory / "ledger.counterexamples" / "2.npy").write_bytes(b"no array")
    assert gallery(ledger, judged, None, 3)[0].counterexample is None


def test_published_figures_are_those_of_the_presets_and_of_their_setting_only():
    words = {"crown_ibp": "CROWN-IBP", "ibp": "IBP", "mtl_ibp": "MTL-IBP", "cc_ibp": "CC-IBP", "exp_ibp": "Exp-IBP"}
    known = {(one.source, one.data, round(one.eps, 6), one.method): one for one in all_published()}
    sources = {"CTBench (ICML 2025)": "ctbench", "De Palma et al. (ICLR 2024)": "expressive"}
    for source, prefix in sources.items():
        for name, preset in presets().items():
            if name.startswith(prefix) and preset.natural is not None:
                data, eps, loss = re.fullmatch(rf"{prefix}_([a-z_0-9]+?)_(0\.\d|\d_255)_(\w+)", name).groups()
                radius = round(float(eps[0]) / 255 if eps.endswith("255") else float(eps), 6)
                one = known[source, data, radius, words.get(loss, loss.upper())]
                assert (one.natural, one.certified) == (preset.natural, preset.certified), name
    assert {one.eps for one in published_for("cifar10", 0.00784313725)} == {2 / 255}
    assert published_for("digits", 0.05) == []
    assert published_for("cifar10", 0.008) == []


def test_published_points_stand_beside_runs_of_their_setting(tmp_path: Path):
    for seed in (0, 1):
        run(tmp_path, "grad", "ibp", seed, 0.93, eps=0.3, data__name="mnist")
    page = write([tmp_path], ReportOptions(images=0)).read_text(encoding="utf-8")
    assert found("MTL-IBP 98.74 / 93.90, CNN7 with batch norm, complete, branch and bound", re.sub("<wbr>", "", page))
    assert "75.40 certified by the relaxation that trains" in re.sub("<wbr>", "", page)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required"),
        (["nowhere"], "report: nowhere is no directory"),
        (["{study}", "curvs=3"], "unknown key 'curvs'; did you mean curves"),
        (["{study}", "curves=0"], "curves"),
        (["{study}", "output=page.pdf"], "must be a file that ends in .html"),
        (["images=3"], "name at least one run directory"),
        (["{empty}"], "no finished run"),
    ],
)
def test_mistakes_are_one_line(study: Path, tmp_path: Path, arguments: list[str], complaint: str):
    places = {"study": str(study), "empty": str(tmp_path)}
    with pytest.raises(CerttrainError, match=re.escape(complaint)) as caught:
        report_command([word.format(**places) for word in arguments])
    assert "\n" not in str(caught.value)


def test_where_pages_go(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, other = study / "sweep" / "0", study / "sweep" / "1"
    report_command([str(one), f"output={tmp_path / 'a' / 'one.html'}", "images=0"])
    assert "one.html" in capsys.readouterr().out
    assert "Certified afterwards" in (tmp_path / "a" / "one.html").read_text(encoding="utf-8")
    page = write([one, other], ReportOptions(images=0, title="Two seeds"))
    assert page == study / "sweep" / "report.html", "not in place of a run's own page"
    assert "<h1>Two seeds</h1>" in page.read_text(encoding="utf-8")


def test_a_run_that_cannot_be_read_as_a_whole_is_still_shown(tmp_path: Path):
    directory = full_run(tmp_path, "grad", "ibp", 0, 5)
    full_run(tmp_path, "grad", "deeppoly", 0, 5)
    (directory / "metrics.jsonl").write_text("{\n{\n")
    (directory / "ledger.jsonl").write_text("[]\n[]\n")
    page = write([tmp_path], ReportOptions()).read_text(encoding="utf-8")
    assert found("metrics.jsonl line 1 is no JSON", re.sub("<wbr>", "", page))
    assert "50.00" in page or "25.00" in page


def test_the_page_of_a_search_has_its_trials_its_front_and_what_was_pruned(tmp_path: Path):
    for seed in (0, 1):
        run(tmp_path, seed=seed)
    trial = {"state": "complete", "best": False, "feasible": True, "seconds": 5.0, "reason": None}
    figures = {"val/certified_accuracy": 0.625, "train_seconds": 3.0}
    trials = [
        {**trial, "trial": 0, "values": {"optimizer.lr": 0.001234567}, "figures": {**figures}, "jobs": [0, 1]},
        {**trial, "trial": 1, "values": {"optimizer.lr": 0.1}, "figures": {}, "jobs": [2, 3]},
        {**trial, "trial": 2, "values": {"optimizer.lr": 0.02}, "figures": {**figures}, "jobs": [4, 5]},
    ]
    trials[1] |= {"state": "pruned", "reason": "behind the median of 2 trials", "reports": {"1": 0.2, "3": 0.25}}
    trials[2] |= {"best": True}
    trials[2]["figures"]["val/certified_accuracy"] = 0.75
    objectives = [{"key": "val/certified_accuracy", "direction": "maximize"}]
    record = {"objectives": objectives, "constraints": ["val/natural_accuracy>=0.9"], "trials": trials}
    (tmp_path / "search.json").write_text(json.dumps(record))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "search.json").write_text('{"trials": 3}')
    page = write([tmp_path], ReportOptions(images=0)).read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<wbr>|<[^>]*>", " ", page).replace("\xa0", " "))
    assert found(
        "maximize val/certified_accuracy, keeping val/natural_accuracy&gt;=0.9. 3 trials: 2 complete, 1 pruned.", text
    )
    first, second, third = "2 best complete 75.00 %", "0 complete 62.50 %", "1 pruned 25.00 % after 3 epochs"
    places = [re.sub(r"\s", "", text).index(re.sub(r"\s", "", words)) for words in (first, second, third)]
    assert places == sorted(places), "the best first, what was given up last"
    assert found("optimizer.lr=0.001235 0, 1 5.0 s", text)
    assert found("behind the median of 2 trials", text)
    assert 'aria-label="val/certified_accuracy over trials, a point for each trial"' in page
    assert found("other/search.json is no record of a search", text), "the page is written all the same"


def test_evaluations_are_counted_by_the_estimator(tmp_path: Path):
    steps = "".join(json.dumps({"step": s, "epoch": s // 10}) + "\n" for s in range(40))
    expected = {"grad": 40, "rgs": 40 * 8, "pgpe": 10 + 30 * 65}
    for method, count in expected.items():
        options = {"rgs": {"rgs__samples": 8}, "pgpe": {"pgpe__control_variate": "gradient", "warm_start__epochs": 1}}
        directory = run(tmp_path, method, "ibp", 0, **options.get(method, {}))
        (directory / "metrics.jsonl").write_text(steps)
        assert read_material(directory).evaluations == count, method


def test_lines_are_thinned_and_letters_moved_apart():
    series = Series(tuple(map(float, range(1000))), (float("nan"), *([1.0] * 999)))
    thin = thinned(series, 100)
    assert len(thin.steps) == 100
    assert thin.steps[-1] == 999
    assert set(thin.values) == {1.0}
    assert thinned(thin, 100) is thin
    moved = spread([0.0, 1.0, 1.5, 40.0], 10.0)
    assert all(b - a >= 10.0 - 1e-9 for a, b in itertools.pairwise(moved))
    assert moved[3] == 40.0
    assert sum(moved[:3]) == pytest.approx(2.5)


def test_charts_follow_the_style_sheet_and_share_no_ids():
    def draw(ax):
        ax.plot([0, 1], [0.005, 0.0125], color=BLUE, marker="o")
        ax.set_title("0.0125 <of> all")

    one, other = (inline(draw, 'a "chart"') for _ in range(2))
    assert "stroke: var(--blue)" in one
    assert "fill: var(--ink)" in one
    assert "#0072b2" not in one
    assert "0.0125 &lt;of&gt; all" in one, "places are rounded, text is not"
    assert 'aria-label="a &quot;chart&quot;"' in one
    assert "<style" not in one
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_keys_break_between_their_parts_only():
    assert breakable("pgpe.population_size") == "pgpe.<wbr>population_size"
    assert breakable("a/b <i>") == "a/<wbr>b &lt;i&gt;"
    assert breakable("98.5") == "98.5"


def test_a_hundred_runs_are_a_page_of_less_than_three_megabytes(tmp_path: Path):
    for i in range(50):
        for seed in (0, 1):
            full_run(tmp_path / "many", "pgpe", "ibp", seed, 5 + i % 5, pgpe__sigma=0.01 * (i + 1))
    page = write([tmp_path], ReportOptions())
    assert page.stat().st_size < 3e6
