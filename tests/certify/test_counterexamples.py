"""Counterexamples of verifiers: confirmed like those of the attack, kept beside the ledger, and evidence only then."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from certify.fakes import diagonal, points, run, spike
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify import Attack, Proved, SoundnessError, Verifier, read_counterexample, read_ledger, summarize
from certtrain.certify.network import Network
from certtrain.errors import DataError
from certtrain.networks import Graph

NO_ATTACK = Attack(steps=0)


@dataclass(frozen=True)
class Finder(Verifier):
    """Claims a point for the first image of every batch, beside the same margin for all."""

    point: tuple[float, ...] = (0.6, 0.5)
    margin: float = -1.0
    finished: str = "yes"
    position: int = 0

    def smallest_margins(self, network: Network, box: Box, labels: Tensor, deadline: float) -> Proved:
        margins = torch.full((len(box),), self.margin, dtype=torch.float64)
        finished = torch.full((len(box),), self.finished == "yes")
        return Proved(margins, finished, {self.position: torch.tensor(self.point, dtype=torch.float64)})

    def bytes_per_image(self, graph: Graph) -> int:
        return 1

    def check(self, network: Network, images: Tensor) -> None:
        return

    def options(self) -> str:
        return repr(self)


# Of `spike`: beside the image lies a ball in which label 1 wins, and no gradient leads there.
HIDDEN = points((0.55, 0.5))


@pytest.mark.parametrize("cascade", ["all", "first"])
def test_a_point_that_a_weak_attack_misses_falsifies(tmp_path: Path, cascade: str) -> None:
    path = tmp_path / "ledger.jsonl"
    given = {"attack": NO_ATTACK, "cascade": cascade, "ledger": path}
    (verdict,) = run(spike(1e-3), HIDDEN, 0.1, "ibp", Finder("finder"), **given)
    assert (verdict.status, verdict.falsified_by, verdict.verified_by) == ("falsified", "finder", None)
    assert (verdict.failures, verdict.remarks, verdict.message) == ({}, {}, None)
    assert verdict.counterexample == "ledger.counterexamples/0.npy"
    assert read_ledger(path) == [verdict]
    found = read_counterexample(path, verdict)
    assert found.dtype == torch.float64
    network = Network.of(spike(1e-3), (2,))
    assert bool(network.misclassifies(found[None], torch.tensor([0])).all())
    assert float((found - HIDDEN[0].double()).abs().max()) <= 0.1
    counted = summarize([verdict], ["ibp", "finder"])
    assert counted["attacked_accuracy"] == 1.0, "the attack did not find it"
    assert {s["name"]: s["falsified"] for s in counted["stages"]} == {
        "prediction": 0,
        "attack": 0,
        "ibp": 0,
        "finder": 1,
    }


@pytest.mark.parametrize(
    ("point", "remark"),
    [
        ((0.6500001, 0.5), "a counterexample that lies outside the box"),
        ((torch.nan, 0.5), "a counterexample that lies outside the box"),
        ((torch.inf, 0.5), "a counterexample that lies outside the box"),
        ((0.5, 0.5), "a counterexample that two precisions do not confirm"),
    ],
)
def test_a_point_that_is_not_confirmed_claims_nothing(point: tuple[float, ...], remark: str) -> None:
    (verdict,) = run(spike(1e-3), HIDDEN, 0.1, Finder("finder", point), attack=NO_ATTACK)
    assert (verdict.status, verdict.falsified_by, verdict.counterexample) == ("unknown", None, None)
    assert (verdict.failures, verdict.remarks) == ({}, {"finder": remark})


def test_a_point_on_the_border_counts_and_beyond_it_does_not() -> None:
    # Label 1 wins where x1 > x0; the box ends exactly at 0.75 in float64.
    inputs, eps = points((0.5, 0.25)), 0.25
    (on,) = run(diagonal(), inputs, eps, Finder("finder", (0.25, 0.5)), attack=NO_ATTACK)
    assert (on.status, on.falsified_by) == ("falsified", "finder")
    (beyond,) = run(diagonal(), inputs, eps, Finder("finder", (0.25 - 1e-15, 0.5)), attack=NO_ATTACK)
    assert (beyond.status, beyond.remarks) == ("unknown", {"finder": "a counterexample that lies outside the box"})


def test_a_bound_that_was_not_worked_out_beside_a_counterexample_is_no_failure() -> None:
    for finder in (
        Finder("finder", margin=torch.nan),
        Finder("finder", margin=-torch.inf),
        Finder("finder", finished="no"),
    ):
        (verdict,) = run(spike(1e-3), HIDDEN, 0.1, finder, attack=NO_ATTACK)
        assert (verdict.status, verdict.failures) == ("falsified", {})
        tally = summarize([verdict], ["finder"])["verifiers"]["finder"]
        assert (tally["judged"], tally["failed"], tally["passed"]) == (1, 0, 0)


def test_a_proof_beside_its_own_counterexample_stops_everything() -> None:
    with pytest.raises(SoundnessError, match="of which finder found a counterexample"):
        run(spike(1e-3), HIDDEN, 0.1, Finder("finder", margin=1.0), attack=NO_ATTACK, cascade="first")


@pytest.mark.parametrize("finder", [Finder("finder", position=3), Finder("finder", point=(0.6,))])
def test_a_point_that_fits_no_image_is_an_error_and_no_verdict(finder: Finder) -> None:
    (verdict,) = run(spike(1e-3), HIDDEN, 0.1, finder, attack=NO_ATTACK)
    assert (verdict.status, verdict.failures["finder"].kind) == ("error", "error")
    assert "a counterexample of shape" in verdict.message


def test_what_the_attack_finds_is_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    robust, broken = run(diagonal(), points((0.9, 0.1), (0.6, 0.5)), 0.1, "ibp", ledger=path, indices=[4, 17])
    assert (robust.counterexample, robust.falsified_by) == (None, None)
    assert (broken.counterexample, broken.falsified_by) == ("ledger.counterexamples/17.npy", "attack")
    found = read_counterexample(path, broken)
    assert bool(
        ((found >= torch.tensor([0.6, 0.5]) - 0.1 - 1e-7) & (found <= torch.tensor([0.6, 0.5]) + 0.1 + 1e-7)).all()
    )
    assert found[1] >= found[0]
    assert read_counterexample(path, robust) is None
    (tmp_path / "ledger.counterexamples" / "17.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"17.npy is no counterexample that can be read"):
        read_counterexample(path, broken)


def test_rows_of_before_there_were_stages_are_read_and_gone_on_with(tmp_path: Path) -> None:
    path, inputs = tmp_path / "ledger.jsonl", points((0.9, 0.1), (0.6, 0.5), (0.8, 0.1))
    run(diagonal(), inputs[:2], 0.1, "ibp", ledger=path)
    later = ("falsified_by", "counterexample", "remarks", "stages", "cascade")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k not in later}) + "\n" for row in rows))
    meta = tmp_path / "ledger.meta.json"
    settings = json.loads(meta.read_text())
    del settings["cascade"]
    meta.write_text(json.dumps(settings))
    verdicts = run(diagonal(), inputs, 0.1, "ibp", ledger=path)
    assert [v.status for v in verdicts] == ["verified", "falsified", "verified"]
    assert (verdicts[1].falsified_by, verdicts[1].counterexample) == ("attack", None)
    counted = summarize(verdicts, ["ibp"])
    assert counted["cascade"] == "all"
    assert counted["attack"]["passed"] == 2
    assert [stage["seconds"] for stage in counted["stages"]] == [None] * 3
