"""Cascades: who is asked about which image, when a verdict is handed over, and what the stages add up to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from certify.fakes import QUICK, constant, diagonal, paired, points, run
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify import Attack, Proved, Verdict, Verifier, certify, read_ledger, summarize
from certtrain.certify.network import Network
from certtrain.errors import ConfigError
from certtrain.networks import Graph

NO_ATTACK = Attack(steps=0)
# Of `diagonal` at eps 0.1 and label 0: robust, falsified, misclassified, robust.
INPUTS = points((0.9, 0.1), (0.6, 0.5), (0.2, 0.8), (0.8, 0.1))


@dataclass(frozen=True)
class Asked(Verifier):
    """Notes the left pixels that it is asked about, and answers what `answer` says."""

    answer: Callable[[Tensor], Tensor] = torch.zeros_like
    at_once: int = 100
    seen: list[list[float]] = field(default_factory=list)

    def smallest_margins(self, network: Network, box: Box, labels: Tensor, deadline: float) -> Proved:
        left = box.center[:, 0]
        self.seen.append([round(x, 4) for x in left.tolist()])
        return Proved(self.answer(left), torch.ones(len(box), dtype=torch.bool))

    def bytes_per_image(self, graph: Graph) -> int:
        return 1

    def images_at_once(self, graph: Graph, budget: int, largest: int) -> int:
        return self.at_once

    def check(self, network: Network, images: Tensor) -> None:
        return

    def options(self) -> str:
        return "asked"


def stages(verdicts: list[Verdict], *verifiers: str) -> dict[str, tuple[int, int, int, int, int]]:
    counted = summarize(verdicts, verifiers)["stages"]
    return {s["name"]: tuple(s[k] for k in ("asked", "settled", "verified", "falsified", "failed")) for s in counted}


def test_first_asks_each_stage_only_what_is_left() -> None:
    early, late = Asked("early", lambda left: (left > 0.85).double()), Asked("late")
    verdicts = run(diagonal(), INPUTS, 0.1, early, late, cascade="first")
    assert (early.seen, late.seen) == ([[0.9, 0.8]], [[0.8]]), "one is misclassified, one falsified"
    assert [v.status for v in verdicts] == ["verified", "falsified", "misclassified", "unknown"]
    assert stages(verdicts, "early", "late") == {
        "prediction": (4, 1, 0, 0, 0),
        "attack": (3, 1, 0, 1, 0),
        "early": (2, 1, 1, 0, 0),
        "late": (1, 0, 0, 0, 0),
    }


def test_all_asks_every_stage_about_every_correct_image() -> None:
    early, late = Asked("early", lambda left: (left > 0.85).double()), Asked("late", lambda left: (left > 0.7).double())
    verdicts = run(diagonal(), INPUTS, 0.1, early, late)
    assert early.seen == late.seen == [[0.9, 0.6, 0.8]]
    assert [v.verified_by for v in verdicts] == ["early", None, None, "late"]
    assert stages(verdicts, "early", "late")["early"] == (3, 1, 1, 0, 0)
    assert stages(verdicts, "early", "late")["late"] == (3, 2, 2, 0, 0)


@pytest.mark.parametrize("eps", [0.02, 0.05, 0.1])
def test_both_cascades_come_to_the_same_verdicts(eps: float) -> None:
    inputs = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    one, other = (run(paired(), inputs, eps, "ibp", "crown_ibp", "deeppoly", cascade=c) for c in ("all", "first"))
    assert [(v.status, v.verified_by, v.falsified_by) for v in one] == [
        (v.status, v.verified_by, v.falsified_by) for v in other
    ]
    counted = [summarize(verdicts) for verdicts in (one, other)]
    assert counted[0]["certified_accuracy"] == counted[1]["certified_accuracy"]


def test_numbers_of_verifiers_that_were_asked_about_leftovers_are_no_accuracies() -> None:
    verdicts = run(diagonal(), INPUTS, 0.1, "ibp", "deeppoly", cascade="first")
    counted = summarize(verdicts, ["ibp", "deeppoly"])
    assert (counted["cascade"], counted["certified_accuracy_by"], counted["verifiers"]) == ("first", {}, {})
    assert counted["certified_accuracy"] == 0.5
    mixed = summarize([*verdicts[:1], *run(diagonal(), INPUTS[1:], 0.1, "ibp", indices=[1, 2, 3])])
    assert mixed["certified_accuracy_by"] == {}


def test_stages_say_how_long_they_took() -> None:
    verdicts = run(diagonal(), INPUTS, 0.1, "ibp", "deeppoly", cascade="first")
    assert set(verdicts[0].stages) == {"prediction", "attack", "ibp"}
    assert set(verdicts[2].stages) == {"prediction"}
    counted = {stage["name"]: stage["seconds"] for stage in summarize(verdicts, ["ibp", "deeppoly"])["stages"]}
    assert sum(counted.values()) == pytest.approx(sum(v.seconds for v in verdicts), abs=1e-4)
    assert counted["ibp"] > 0
    assert counted["deeppoly"] == 0.0


def test_a_late_stage_does_not_hold_finished_verdicts_back(tmp_path: Path) -> None:
    path, written = tmp_path / "ledger.jsonl", []

    def late(left: Tensor) -> Tensor:
        written.append([v.index for v in read_ledger(path)])
        return torch.zeros_like(left)

    inputs = points((0.9, 0.1), (0.6, 0.5), (0.2, 0.8), (0.81, 0.1), (0.82, 0.1))
    early = Asked("early", lambda left: (left > 0.85).double())
    run(diagonal(), inputs, 0.1, early, Asked("late", late, at_once=1), cascade="first", ledger=path)
    assert [sorted(rows) for rows in written] == [[0, 1, 2], [0, 1, 2, 3]]
    assert sorted(v.index for v in read_ledger(path)) == [0, 1, 2, 3, 4]


def test_an_image_without_time_is_not_kept_for_stages_that_will_not_be_asked(tmp_path: Path) -> None:
    path, written = tmp_path / "ledger.jsonl", []

    def middle(left: Tensor) -> Tensor:
        written.append([v.index for v in read_ledger(path)])
        return torch.zeros_like(left)

    names = Asked("slow"), Asked("middle", middle), Asked("late")
    verdicts = run(diagonal(), INPUTS[:1], 0.1, *names, cascade="first", timeout_s=1e-9, ledger=path, attack=NO_ATTACK)
    assert (written, verdicts[0].status) == ([], "timeout")
    assert set(verdicts[0].failures) == {"slow", "middle", "late"}
    assert stages(verdicts, "slow", "late")["late"] == (1, 0, 0, 0, 1)


def test_cascades_are_not_mixed_in_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    run(diagonal(), INPUTS[:2], 0.1, "ibp", ledger=path)
    with pytest.raises(ConfigError, match='cascade "all" there, "first" here'):
        run(diagonal(), INPUTS, 0.1, "ibp", ledger=path, cascade="first")


def test_an_unknown_cascade_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cascade must be one of all, first, got 'frist'.*did you mean first"):
        run(diagonal(), INPUTS, 0.1, "ibp", cascade="frist")


def test_failures_of_a_stage_are_counted_in_both_cascades() -> None:
    for cascade in ("all", "first"):
        verdicts = run(diagonal(), INPUTS[:1], 0.1, ("nan", constant(torch.nan)), "ibp", cascade=cascade)
        assert verdicts[0].status == "verified"
        assert stages(verdicts, "nan", "ibp")["nan"] == (1, 0, 0, 0, 1)


@pytest.mark.parametrize("cascade", ["all", "first"])
def test_seven_images_on_two_ranks(tmp_path: Path, cascade: str) -> None:
    inputs = torch.cat([INPUTS, INPUTS[:3]])
    labels, path = torch.zeros(7, dtype=torch.int64), tmp_path / "ledger.jsonl"
    given = {"relaxations": "ibp", "attack": QUICK, "cascade": cascade, "ledger": path}
    one = certify(diagonal(), inputs, labels, 0.1, shard=(0, 2), **given)
    assert [v.index for v in one] == [0, 2, 4, 6]
    assert (tmp_path / "ledger-0-of-2.jsonl").is_file()
    other = certify(diagonal(), inputs, labels, 0.1, shard=(1, 2), **given)
    assert [v.index for v in other] == [1, 3, 5]
    assert not path.exists()
    together = read_ledger(path)
    assert sorted(v.index for v in together) == list(range(7))
    assert together == [*sorted(one, key=together.index), *sorted(other, key=together.index)]
    calls = []
    again = certify(diagonal(), inputs, labels, 0.1, progress=lambda *call: calls.append(call[:2]), **given)
    assert calls == [(7, 7)], "nothing is done again, however the work was shared"
    assert [v.index for v in again] == list(range(7))
    assert [(v.status) for v in again] == [v.status for v in run(diagonal(), inputs, 0.1, "ibp")]


def test_shards_of_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    run(diagonal(), INPUTS, 0.1, "ibp", ledger=path, shard=(0, 2))
    for shard in ((1, 2), (0, 4), None):
        with pytest.raises(ConfigError, match=r"ledger-0-of-2.jsonl holds verdicts of other settings \(eps"):
            run(diagonal(), INPUTS, 0.2, "ibp", ledger=path, shard=shard)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0), (0,), "ab", (0.0, 2), (True, 2)])
@pytest.mark.usefixtures("as_users_call")
def test_a_shard_that_is_none_is_refused(shard: object) -> None:
    with pytest.raises(ConfigError, match=r"shard must be a pair \(rank, ranks\)"):
        run(diagonal(), INPUTS, 0.1, "ibp", shard=shard)
