"""The table of a run: readable without a terminal, nothing in it that was not judged."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from report.fakes import console, summary, verdict

from certtrain.certify import Failure, summarize
from certtrain.report import (
    CertificationFailed,
    check_failures,
    print_verdict,
)
from certtrain.report.rows import result_rows


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
