"""A rate is over what was judged: what failed is counted, named, and never a verdict or a zero."""

import json

import pytest
import torch
from certify.fakes import Scripted, constant, diagonal, points, raising, run

from certtrain.certify import Attack, Tally, certify, read_ledger, summarize

BOOM = ("mine", raising(ValueError("boom")))
OOM = ("mine", raising(RuntimeError("out of memory")))
NAN = ("mine", constant(torch.nan))
ROBUST, FALSIFIED, WRONG = (0.9, 0.1), (0.6, 0.5), (0.2, 0.8)


@pytest.mark.parametrize(
    ("verifier", "kind", "message"),
    [
        (BOOM, "error", "ValueError: boom"),
        (OOM, "oom", "RuntimeError: out of memory"),
        (NAN, "error", "non-finite margin (nan)"),
    ],
)
def test_a_verifier_that_never_judged_has_no_rate(verifier: tuple, kind: str, message: str):
    (verdict,) = run(diagonal(), points(ROBUST), 0.1, "ibp", verifier)
    assert (verdict.status, verdict.verified_by) == ("verified", "ibp"), "the proof of another stands"
    assert (verdict.failures["mine"].kind, verdict.message) == (kind, f"mine: {message}")
    counted = summarize([verdict])
    assert counted["certified_accuracy_by"] == {"ibp": 1.0, "mine": None}
    assert counted["verifiers"]["mine"] == {"passed": 0, "decided": 0, "judged": 0, "failed": 1, "skipped": 0}
    assert counted["failures"] == [{"stage": "mine", "kind": kind, "images": 1, "message": message}]
    assert counted["certified_accuracy"] == 1.0


def test_a_verifier_that_had_no_time_left_has_no_rate():
    (verdict,) = run(diagonal(), points(ROBUST), 0.1, "ibp", "deeppoly", timeout_s=1e-9)
    assert (verdict.status, verdict.margins) == ("timeout", {})
    late = Scripted(lambda box: torch.ones(len(box)))
    (verdict,) = run(diagonal(), points(ROBUST), 0.1, ("first", late), "deeppoly", timeout_s=60.0)
    assert verdict.failures == {}
    counted = summarize(run(diagonal(), points(ROBUST, WRONG), 0.1, "ibp", "deeppoly", timeout_s=1e-9))
    assert counted["certified_accuracy_by"] == {"ibp": None, "deeppoly": None}
    assert counted["verifiers"]["deeppoly"] == {"passed": 0, "decided": 1, "judged": 0, "failed": 1, "skipped": 1}
    assert [row["kind"] for row in counted["failures"]] == ["timeout", "timeout"]
    assert counted["failures"][1]["message"] == "not started, the image's 1e-09 s were used up"


def test_a_rate_leaves_out_what_failed_and_counts_what_nobody_can_certify():
    # Only the first image lies this far right.
    mine = ("mine", raising(ValueError("boom"), when=lambda box: bool((box.upper[:, 0] > 0.95).any())))
    verdicts = run(diagonal(), points(ROBUST, FALSIFIED, WRONG, (0.8, 0.1)), 0.1, mine, "ibp")
    counted = summarize(verdicts)
    assert counted["verifiers"]["mine"] == {"passed": 0, "decided": 3, "judged": 2, "failed": 1, "skipped": 1}
    assert counted["verifiers"]["ibp"] == {"passed": 2, "decided": 4, "judged": 3, "failed": 0, "skipped": 1}
    assert counted["certified_accuracy_by"] == {"mine": 0.0, "ibp": 0.5}
    assert counted["statuses"]["error"] == 0, "the image that it failed on is verified"
    assert [row["images"] for row in counted["failures"]] == [1]


def test_an_attack_that_never_ran_is_not_withstood(monkeypatch: pytest.MonkeyPatch):
    def fail(*args):
        raise ValueError("broken attack")

    monkeypatch.setattr(Attack, "find", fail)
    counted = summarize(run(diagonal(), points(ROBUST, FALSIFIED, WRONG), 0.1, "ibp"))
    assert counted["attack"] == {"passed": 1, "decided": 2, "judged": 0, "failed": 2, "skipped": 1}
    assert counted["attacked_accuracy"] is None, "of the second image nobody knows"
    assert summarize(run(diagonal(), points(ROBUST), 0.1, "ibp"))["attacked_accuracy"] == 1.0, "proved robust"


def test_a_network_without_numbers_has_no_rate():
    model = diagonal()
    model[0].weight.data[0, 0] = torch.nan
    counted = summarize(run(model, points(ROBUST, WRONG), 0.1, "ibp"), ["ibp"])
    rates = (counted[f"{what}_accuracy"] for what in ("natural", "attacked", "certified"))
    assert [*rates, counted["certified_accuracy_by"]["ibp"]] == [None] * 4
    assert (counted["prediction"]["failed"], counted["verifiers"]["ibp"]["skipped"]) == (2, 2)
    assert counted["failures"][0]["message"] == "non-finite outputs"


def test_the_union_claims_no_more_than_at_least():
    mine = ("mine", raising(ValueError("boom"), when=lambda box: bool((box.lower[:, 0] < 0.5).any())))
    counted = summarize(run(diagonal(), points(ROBUST, (0.55, 0.5)), 0.08, mine, attack=Attack(steps=0)))
    assert (counted["certified_accuracy"], counted["statuses"]["error"]) == (0.0, 1)


@pytest.mark.parametrize(
    ("tally", "rate"),
    [
        (Tally(passed=3, decided=4, judged=4, failed=0, skipped=0), 0.75),
        (Tally(passed=0, decided=5, judged=0, failed=0, skipped=5), 0.0),
        (Tally(passed=0, decided=2, judged=0, failed=3, skipped=2), None),
        (Tally(passed=0, decided=0, judged=0, failed=0, skipped=0), None),
        (Tally(passed=1, decided=2, judged=1, failed=8, skipped=1), 0.5),
    ],
)
def test_rates(tally: Tally, rate: float | None):
    assert tally.rate == rate


def test_failures_survive_the_ledger_and_a_restart(tmp_path):
    path = tmp_path / "ledger.jsonl"
    inputs, labels = points(ROBUST, FALSIFIED, (0.8, 0.1)), torch.zeros(3, dtype=torch.int64)

    def again(images: int):
        given = {"relaxations": ("ibp", NAN), "ledger": path, "attack": Attack(steps=2)}
        return certify(diagonal(), inputs[:images], labels[:images], 0.1, **given)

    first = again(2)
    row = json.loads(path.read_text().splitlines()[0])
    assert row["failures"] == {"mine": {"kind": "error", "message": "non-finite margin (nan)"}}
    verdicts = again(3)
    assert verdicts[:2] == first
    assert verdicts == read_ledger(path)
    assert summarize(verdicts)["verifiers"]["mine"]["failed"] == 3


def test_a_ledger_without_the_column_is_read_and_gone_on_with(tmp_path):
    path = tmp_path / "ledger.jsonl"
    inputs, labels = points(ROBUST, (0.55, 0.5), WRONG, (0.8, 0.1)), torch.zeros(4, dtype=torch.int64)
    mine = ("mine", raising(ValueError("boom"), when=lambda box: bool((box.lower[:, 0] < 0.5).any())))
    given = {"relaxations": ("ibp", mine, "deeppoly"), "ledger": path, "attack": Attack(steps=0)}
    certify(diagonal(), inputs[:3], labels[:3], 0.08, **given)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:  # as the version before wrote them
        del row["failures"], row["eps"]
    assert [row["message"] for row in rows] == [None, "mine: ValueError: boom", None]
    del rows[0]["margins"]["deeppoly"]  # as if no time had been left
    rows[0]["margins"]["mine"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    robust, bad, wrong, new = certify(diagonal(), inputs, labels, 0.08, **given)
    assert {stage: f.kind for stage, f in robust.failures.items()} == {"mine": "error", "deeppoly": "timeout"}
    assert robust.status == "verified"
    assert bad.failures["mine"].message == "ValueError: boom"
    assert (wrong.failures, new.failures) == ({}, {})
    counted = summarize(read_ledger(path))
    assert counted["verifiers"]["mine"] == {"passed": 0, "decided": 2, "judged": 1, "failed": 2, "skipped": 1}
    assert counted["verifiers"]["deeppoly"] == {"passed": 1, "decided": 3, "judged": 2, "failed": 1, "skipped": 1}
