"""What a run leaves for people: a page that is complete without a network."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from report.fakes import PNG, VERDICTS, console, summary, verdict

from certtrain.certify import summarize
from certtrain.errors import DataError
from certtrain.report import (
    print_verdict,
    write_report,
)


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
