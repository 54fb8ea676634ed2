"""What a run leaves for people: right numbers, readable without a terminal, complete without a network."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from report.fakes import PNG, console, verdict

from certtrain.certify import Failure, summarize
from certtrain.errors import DataError
from certtrain.report import (
    CertificationFailed,
    check_failures,
    print_verdict,
    read_summary,
    write_report,
    write_summary,
)
from certtrain.report.rows import result_rows, title
from certtrain.report.summary import IDENTITY

KEYS = {
    "natural_accuracy",
    "attacked_accuracy",
    "certified_accuracy",
    "certified_accuracy_by",
    "train_seconds",
    "certify_seconds",
    "parameters",
    "relaxation",
    "backend",
    "relaxation_options",
    "method",
    "eps",
    "seed",
    "versions",
    "title",
    "data",
    "model",
    "loss",
    "command",
    "overrides",
    "commit",
    "hardware",
}


VERDICTS = [
    verdict(0, "verified", 0.5, 0.7),
    verdict(1, "verified", -90.0, 0.2),
    verdict(2, "falsified", -3.0, -0.4),
    verdict(3, "misclassified"),
    verdict(4, "error", -1.0, None, message="deeppoly: RuntimeError: <b>odd</b> & bad"),
]


def summary(path: Path, result: dict | None = None, **change) -> dict:
    told = {"relaxation": "hbox", "method": "pgpe", "eps": 0.1, "seed": 7, "backend": "native"}
    told |= {key: change.pop(key) for key in list(change) if key in IDENTITY}
    given = {"train_seconds": 12.5, "certify_seconds": 3.0, "parameters": 1234, "identity": told}
    return write_summary(path, result=summarize(VERDICTS) if result is None else result, **given | change)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with everything in it."""
    summary(tmp_path / "summary.json")
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(v.row()) + "\n" for v in VERDICTS))
    rows = [{"step": s, "train/loss": 2.0 / (s + 1), "eps": 0.01 * s, "lr": 1e-3} for s in range(5)]
    rows.append({"step": 4, "val/natural_accuracy": 0.9, "val/certified_accuracy": 0.5})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"eps": 0.1, "relaxation": {"name": "hbox"}, "pgpe": {"sigma": 0.01}, "data": {"path": None}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


class Page(HTMLParser):
    """Text, pictures, and whether tags are closed in order."""

    VOID = ("meta", "img", "br", "wbr", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.sources = "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_summary_has_the_agreed_keys_and_no_nan(tmp_path: Path):
    path = tmp_path / "summary.json"
    record = summary(path, train_seconds=float("nan"), certify_seconds=float("inf"))
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert read_summary(path) == record
    assert set(record) >= KEYS
    assert (record["train_seconds"], record["certify_seconds"]) == (None, None)
    assert record["natural_accuracy"] == 0.8
    assert record["attacked_accuracy"] == 0.6
    assert record["certified_accuracy"] == 0.4
    assert record["certified_accuracy_by"] == {"ibp": 0.2, "deeppoly": 0.5}, "deeppoly failed on one"
    assert record["verifiers"]["ibp"] == {"passed": 1, "decided": 5, "judged": 4, "failed": 0, "skipped": 1}
    assert record["verifiers"]["deeppoly"] == {"passed": 2, "decided": 4, "judged": 3, "failed": 1, "skipped": 1}
    assert [(row["stage"], row["kind"], row["images"]) for row in record["failures"]] == [("deeppoly", "error", 1)]
    assert set(record["versions"]) >= {"certtrain", "torch", "python", "pytorch_lightning", "auto_LiRPA"}
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_summary_without_certification(tmp_path: Path):
    record = summary(tmp_path / "summary.json", result={}, certify_seconds=None)
    assert record["certified_accuracy"] is None
    assert record["certified_accuracy_by"] == {}


def test_summary_says_which_variant_trained(tmp_path: Path):
    options = {"lower_slope": "zero", "intersect": False}
    record = summary(tmp_path / "summary.json", relaxation="deeppoly", backend="native", relaxation_options=options)
    assert read_summary(tmp_path / "summary.json") == record
    assert (record["backend"], record["relaxation_options"]) == ("native", options)


@pytest.mark.parametrize(
    ("relaxation", "backend", "options", "shown"),
    [
        ("deeppoly", "native", {"lower_slope": "adaptive", "intersect": True}, "deeppoly"),
        ("deeppoly", "native", {"lower_slope": "adaptive", "intersect": False}, "deeppoly (intersect=false)"),
        ("crown_ibp", "auto_lirpa", {"lower_slope": "adaptive"}, "crown_ibp (auto_lirpa)"),
        ("deeppoly", "auto_lirpa", {"intersect": False}, "deeppoly (auto_lirpa, intersect=false)"),
        ("hbox", "native", {"unheard_of": 1}, "hbox"),
        ("unheard_of", "native", {"intersect": False}, "unheard_of"),
        ("ibp", None, None, "ibp"),
    ],
)
def test_the_title_tells_variants_apart(relaxation: str, backend: str | None, options: dict | None, shown: str):
    record = {"relaxation": relaxation, "backend": backend, "relaxation_options": options}
    assert title(record | {"method": "pgpe", "eps": 0.05}) == f"trained with {shown}, pgpe, eps 0.05"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting"),
        ("[]", "it holds no object"),
        ('{"certified_accuracy_by": 3}', "certified_accuracy_by is no table"),
        ('{"natural_accuracy": "much"}', "natural_accuracy is no number"),
        ('{"stages": {}}', "stages is no list"),
    ],
)
def test_a_damaged_summary_is_told(tmp_path: Path, text: str, why: str):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataError, match=f"is no summary of a run: {why}"):
        read_summary(tmp_path / "summary.json")


def test_the_table_names_training_and_verifiers(tmp_path: Path):
    out = console()
    print_verdict(out, summary(tmp_path / "summary.json"))
    text = out.file.getvalue()
    assert "trained with hbox, pgpe, eps 0.1" in text
    assert "certified by ibp, deeppoly" in text
    rows = re.findall(r"│ (.+?) +│ +([\d.]+) │ (\S+ of \S+) │ +(\d+) │ +(\d+) │ +(\d+) │", text)
    assert rows == [
        ("natural: correct", "80.00", "4 of 5", "5", "0", "0"),
        ("attacked: still correct", "60.00", "3 of 5", "4", "0", "1"),
        ("certified by ibp", "20.00", "1 of 5", "4", "0", "1"),
        ("certified by deeppoly", "50.00", "2 of 4", "3", "1", "1"),
        ("certified by any (union), at least", "40.00", "2 of 5", "3", "1", "1"),
    ]
    assert "deeppoly failed on 1 image (error: RuntimeError: <b>odd</b> & bad): its rate leaves it out" in text
    assert "1 misclassified, 1 falsified, 2 verified, 1 error" in text


def test_hundreds_of_images_break_no_row_at_80_columns():
    tally = {"passed": 328, "decided": 360, "judged": 351, "failed": 0, "skipped": 9}
    known = {"natural_accuracy": 0.975, "attacked_accuracy": 0.9, "certified_accuracy_by": {"crown_ibp": 0.9}}
    tallies = {"prediction": tally, "attack": tally, "verifiers": {"crown_ibp": tally}}
    end = {"certified_accuracy": 0.9, "statuses": {"verified": 328, "misclassified": 9, "falsified": 23}}
    out = console(width=80)
    print_verdict(out, {"images": 360, "eps": 0.05, **known, **tallies, **end})
    names = re.findall(r"^│ (.*?) *│", out.file.getvalue(), re.MULTILINE)
    assert names == [
        "natural: correct",
        "attacked: still correct",
        "certified by crown_ibp",
        "certified by any (union)",
    ]


def test_a_verifier_that_judged_nothing_has_a_dash_and_a_reason(tmp_path: Path):
    verdicts = [verdict(i, "verified", 0.5, None, message="deeppoly: [bold]ValueError: boom") for i in range(3)]
    out = console()
    print_verdict(out, summary(tmp_path / "summary.json", result=summarize(verdicts)))
    text = out.file.getvalue()
    assert re.search(r"certified by deeppoly +│ +– │ +– │ +0 │ +3 │ +0 │", text)
    assert re.search(r"certified by any \(union\) +│ 100.00 │ 3 of 3 │ +3 │ +0 │ +0 │", text)
    assert "deeppoly failed on 3 images (error: [bold]ValueError: boom): it judged none, so it has no rate" in text


def test_a_summary_of_an_older_version_is_shown(tmp_path: Path):
    new = summary(tmp_path / "summary.json")
    old = {key: value for key, value in new.items() if key not in ("prediction", "attack", "verifiers", "failures")}
    rows = result_rows(old)
    assert [(row.percent, row.images, row.judged) for row in rows[:3]] == [
        ("80.00", "4 of 5", "–"),
        ("60.00", "3 of 5", "–"),
        ("20.00", "1 of 5", "–"),
    ]
    check_failures(old)


def test_a_certification_with_failures_is_not_called_complete():
    verdicts = [verdict(i, "verified", 0.5, None, message="deeppoly: ValueError: boom") for i in range(3)]
    with pytest.raises(CertificationFailed, match=r"deeppoly failed on 3 of 3 images \(ValueError: boom\)$"):
        check_failures(summarize(verdicts))
    late = [replace(v, failures={"deeppoly": Failure("timeout", "not started")}) for v in verdicts]
    check_failures(summarize(late))
    check_failures({})


def test_the_table_without_certification(tmp_path: Path):
    out = console()
    print_verdict(out, summary(tmp_path / "summary.json", result={}))
    assert "not certified" in out.file.getvalue()


def test_the_page_is_complete_and_self_contained(run: Path):
    page = write_report(run)
    assert page == run / "report.html"
    found = Page(page.read_text(encoding="utf-8"))
    assert found.open == []
    assert all(source.startswith(("data:", "#")) for source in found.sources), "nothing is outside of the page"
    assert "http" not in found.text
    for chart in ("Loss over optimizer steps", "Margins by ibp", "Margins by deeppoly"):
        assert f'aria-label="{chart}' in page.read_text(encoding="utf-8")
    assert "Trained with hbox, pgpe, eps 0.1" in found.text
    assert "certified by ibp, deeppoly" in found.text
    for text in ("pgpe.sigma", "data.path", "null", "falsified", "1,234", "40.00", "2 of 5"):
        assert text in found.text
    assert "1 × deeppoly: RuntimeError: <b>odd</b> & bad" in found.text, "escaped, so that it is text"
    assert "deeppoly failed on 1 image (error: RuntimeError: <b>odd</b> & bad): its rate leaves it out" in found.text
    for heading in ("judged", "failed", "skipped"):
        assert heading in found.text
    for name in ("curves.png", "margins.png"):
        assert (run / name).read_bytes().startswith(PNG)
    assert list(run.glob("*.partial")) == []


def test_a_page_of_an_interrupted_run(run: Path):
    (run / "summary.json").unlink()
    with (run / "ledger.jsonl").open("a") as file:
        file.write('{"index": 5, "lab')
    text = Page(write_report(run).read_text()).text
    assert "Trained with hbox, unknown method, eps 0.1" in text
    assert "2 of 5" in text


def test_a_page_without_summary_names_variant_and_verifiers(tmp_path: Path):
    config = {
        "eps": 0.05,
        "method": "grad",
        "relaxation": {"name": "deeppoly", "backend": "native", "intersect": False},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "ledger.jsonl").write_text(json.dumps(verdict(0, "misclassified").row()) + "\n")
    assert "not certified" in Page(write_report(tmp_path).read_text()).text
    meta = {"verifiers": ["ibp: IBP()", "deeppoly: DeepPoly(lower_slope='adaptive', intersect=True)"]}
    (tmp_path / "ledger.meta.json").write_text(json.dumps(meta))
    text = Page(write_report(tmp_path).read_text()).text
    assert "Trained with deeppoly (intersect=false), grad, eps 0.05" in text
    assert "certified by ibp, deeppoly" in text
    assert "0 of 1" in text


def test_a_page_of_training_alone(run: Path):
    (run / "ledger.jsonl").unlink()
    summary(run / "summary.json", result={}, certify_seconds=None)
    page = write_report(run).read_text()
    assert "not certified" in Page(page).text
    assert "Loss over optimizer steps" in page
    assert "Margins by" not in page


def test_an_empty_folder_is_no_run(tmp_path: Path):
    with pytest.raises(DataError, match="is no run directory"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_importing_the_report_loads_neither_matplotlib_nor_jinja():
    heavy = ("matplotlib", "jinja2", "yaml")
    script = f"import sys, certtrain.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


LEFTOVERS = [
    replace(verdict(0, "verified", 0.5), margins={"ibp": 0.5}, cascade="first", stages={"prediction": 0.5, "ibp": 1.0}),
    replace(verdict(1, "verified", -1.0, 0.2), cascade="first", stages={"prediction": 0.5, "deeppoly": 20.25}),
    replace(verdict(2, "falsified"), margins={}, cascade="first", stages={"attack": 1.0}),
    replace(verdict(3, "misclassified"), cascade="first", stages={"prediction": 0.5}),
    replace(verdict(4, "error", -1.0, None, message="deeppoly: boom"), cascade="first", stages={"deeppoly": 1.0}),
]


def test_a_cascade_is_shown_as_what_each_stage_settled(run: Path):
    record = summary(run / "summary.json", result=summarize(LEFTOVERS))
    out = console(width=120)
    print_verdict(out, record)
    text = out.file.getvalue()
    assert "settled by ibp, deeppoly, each asked only what those before it left open" in text
    assert "certified by ibp" not in text, "it was asked about a part of the images only"
    assert "Stages: each verifier was asked what those before it left open" in text
    rows = re.findall(r"│ (\w+) +│ +(\d+) │ +(\d+) │ +(\d+) │ +(\d+) │ +(\d+) │ +(\d+) │ +([\d.]+) │", text)
    assert rows == [
        ("prediction", "5", "1", "0", "0", "0", "4", "1.50"),
        ("attack", "4", "0", "0", "1", "0", "3", "1.00"),
        ("ibp", "3", "0", "1", "0", "0", "2", "1.00"),
        ("deeppoly", "2", "0", "1", "0", "1", "0", "21.25"),
    ]
    assert "deeppoly failed on 1 image (error: boom): it left it to the stages after it" in text
    (run / "ledger.jsonl").write_text("".join(json.dumps(v.row()) + "\n" for v in LEFTOVERS))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert page.open == []
    for words in ("Stages: each verifier was asked what those before it left open", "misclassified", "21.25", "40.00"):
        assert words in page.text
    assert "certified by deeppoly" not in page.text


def test_claims_that_were_not_confirmed_are_on_the_page(run: Path):
    remarked = replace(verdict(0, "unknown", -1.0, -1.0), remarks={"bab": "a counterexample that lies outside the box"})
    (run / "ledger.jsonl").write_text(json.dumps(remarked.row()) + "\n")
    assert "1 × bab: a counterexample that lies outside the box" in write_report(run).read_text(encoding="utf-8")
