"""summary.json: right numbers, complete, and read again whatever became of it."""

from pathlib import Path

import pytest
from report.fakes import summary

from certtrain.errors import DataError
from certtrain.report import (
    read_summary,
)
from certtrain.report.rows import title

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
