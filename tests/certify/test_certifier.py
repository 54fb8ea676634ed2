"""Verdicts: evidence decides, and nothing is verified by mistake."""

import pytest
import torch
import zoo
from certify.fakes import ALL, QUICK, Scripted, constant, diagonal, linear, paired, points, run, spike
from torch import nn

from certtrain.bounds import Box, build, margin_spec
from certtrain.bounds.backends import _auto_lirpa_compat as compat
from certtrain.certify import SoundnessError, certify, summarize
from certtrain.networks import parameters, trace


def test_every_kind_of_image_gets_the_status_that_is_true_of_it():
    inputs = points((0.9, 0.1), (0.6, 0.5), (0.2, 0.8))
    robust, broken, wrong = run(diagonal(), inputs, 0.1)
    assert (robust.status, robust.verified_by, robust.predicted) == ("verified", "ibp", 0)
    assert robust.margin == pytest.approx(0.6)
    assert set(robust.margins) == set(ALL)
    assert all(m == pytest.approx(0.6) for m in robust.margins.values())
    assert (broken.status, broken.verified_by) == ("falsified", None)
    assert broken.margin == pytest.approx(-0.1)
    assert (wrong.status, wrong.predicted, wrong.margins, wrong.margin) == ("misclassified", 1, {}, None)
    assert [v.message for v in (robust, broken, wrong)] == [None] * 3
    assert [v.index for v in (robust, broken, wrong)] == [0, 1, 2]


def test_every_verifier_is_asked_and_the_first_that_succeeds_is_named():
    (verdict,) = run(paired(), points((0.5, 0.2)), 0.1)
    assert verdict.margins["ibp"] == pytest.approx(-0.3, abs=1e-6)
    assert verdict.margins["deeppoly"] == pytest.approx(0.1, abs=1e-6)
    assert verdict.verified_by == "hbox"
    (reordered,) = run(paired(), points((0.5, 0.2)), 0.1, "deeppoly", "ibp")
    assert (reordered.verified_by, reordered.margin) == ("deeppoly", reordered.margins["deeppoly"])


def test_fractions_per_verifier_and_of_the_union():
    inputs = points((0.5, 0.2), (0.02, 0.2), (0.5, 0.45), (0.5, 0.9))
    verdicts = run(paired(), inputs, 0.05, "ibp", "deeppoly", ("no", constant(-1.0)))
    verdicts += run(diagonal(), points((0.2, 0.8)), 0.1)
    summary = summarize(verdicts)
    # ibp: 0.1 - 4·eps below x0 = 0.05·2, more where x1 helps
    assert summary["certified_accuracy_by"]["deeppoly"] == pytest.approx(4 / 5)
    assert summary["certified_accuracy_by"]["ibp"] == pytest.approx(1 / 5)
    assert summary["certified_accuracy_by"]["no"] == 0
    assert summary["certified_accuracy"] == summary["attacked_accuracy"] == pytest.approx(4 / 5)
    assert summary["statuses"]["misclassified"] == 1
    assert sum(summary["statuses"].values()) == summary["images"] == 5


def test_verifiers_that_had_nothing_to_judge_are_counted_when_named():
    verdicts = run(diagonal(), points((0.2, 0.8)), 0.1, "ibp", "deeppoly")
    assert summarize(verdicts)["certified_accuracy_by"] == {}
    assert summarize(verdicts, ["ibp", "deeppoly"])["certified_accuracy_by"] == {"ibp": 0.0, "deeppoly": 0.0}
    verdicts += run(diagonal(), points((0.9, 0.1)), 0.1, "deeppoly")
    counted = summarize(verdicts, ["ibp", "deeppoly"])
    assert counted["certified_accuracy_by"] == {"ibp": None, "deeppoly": 0.5}, "ibp was not asked about the second"
    assert counted["verifiers"]["ibp"] == {"passed": 0, "decided": 1, "judged": 0, "failed": 0, "skipped": 2}
    assert summarize([], ["ibp"])["certified_accuracy_by"] == {"ibp": None}


@pytest.mark.parametrize("width", [0.05, 1e-4])
def test_a_planted_counterexample_is_never_certified(width: float):
    inputs = points((0.5, 0.5), (0.68, 0.1), (0.3, 0.3))
    found = run(spike(width), inputs, 0.15, *ALL, ("intersection", build("intersection")))
    assert all(v.status in ("unknown", "falsified") for v in found[:2])
    assert found[2].status == "verified"


@pytest.mark.parametrize("name", list(zoo.NETWORKS))
def test_no_image_with_a_misclassified_corner_is_certified(name: str):
    model = zoo.make(name, dtype=torch.float32)
    inputs = torch.rand(6, *zoo.IMAGE, generator=torch.Generator().manual_seed(1))
    labels, eps = model(inputs).argmax(1), 0.02
    graph = trace(model, zoo.IMAGE)
    box = Box.linf(inputs.double(), eps)
    spec = margin_spec(labels, zoo.CLASSES)
    lower = build("ibp").bound(graph, {k: p.detach() for k, p in parameters(model.double()).items()}, box, spec)
    model.float()
    verdicts = certify(model, inputs, labels, eps, attack=QUICK)
    corners = box.lower + (box.upper - box.lower) * torch.randint(0, 2, (200, *box.lower.shape))
    for i, verdict in enumerate(verdicts):
        broken = bool((model(corners[:, i].float()).argmax(1) != labels[i]).any())
        assert not (broken and verdict.status == "verified")
        assert verdict.margins["ibp"] == pytest.approx(float(lower.lower[i].min()), abs=1e-9)


def test_a_margin_that_only_float32_finds_positive_is_vetoed():
    # Beside 5000 a float32 number has steps of `unit`, so x0 < unit/2 is swallowed: the margin seems to be
    # unit/4 everywhere. In truth it is unit/4 - x0.
    unit = 2.0**-11
    model = nn.Sequential(
        linear([[1.0, 0.0]], [5000.0]),
        nn.ReLU(),
        linear([[-1.0]], [5000.0 + 4 * unit]),
        nn.ReLU(),
        linear([[1.0], [0.0]], [-3.75 * unit, 0.0]),
    )
    inputs, eps = points((0.1 * unit, 0.0)), 0.3 * unit
    box, spec = Box.linf(inputs, eps), margin_spec(torch.tensor([0]), 2)
    deceived = build("ibp").bound(trace(model, (2,)), parameters(model), box, spec)
    assert float(deceived.lower.detach()) == pytest.approx(0.25 * unit)
    (verdict,) = run(model, inputs, eps)
    assert verdict.predicted == 0
    assert verdict.status == "unknown", "float32 does not confirm the counterexample, float64 no proof"
    assert verdict.margins["ibp"] == pytest.approx(-0.15 * unit)
    assert all(m < 0 for m in verdict.margins.values())


@pytest.mark.parametrize("believer", [torch.float32, torch.float64])
def test_a_proof_needs_both_precisions(believer: torch.dtype):
    script = Scripted(lambda box: torch.full((len(box),), 1.0 if box.lower.dtype == believer else -1.0))
    (verdict,) = run(diagonal(), points((0.9, 0.1)), 0.1, ("half", script))
    assert (verdict.status, verdict.margins, verdict.margin) == ("unknown", {"half": -1.0}, -1.0)


def test_bounds_are_computed_on_the_exact_float64_box():
    seen = []
    x = points((0.9, 0.1))
    run(diagonal(), x, 0.1, ("spy", Scripted(lambda box: (seen.append(box), torch.ones(len(box)))[1])))
    (exact,) = (box for box in seen if box.lower.dtype == torch.float64)
    assert torch.equal(exact.lower, (x.double() - 0.1).clamp(0, 1))
    assert torch.equal(exact.upper, (x.double() + 0.1).clamp(0, 1))


def test_a_proof_against_a_counterexample_stops_everything(tmp_path):
    inputs, ledger = points((0.9, 0.1), (0.6, 0.5)), tmp_path / "ledger.jsonl"
    with pytest.raises(SoundnessError, match="verifier liar certified image 17"):
        run(diagonal(), inputs, 0.1, ("liar", constant(1.0)), indices=[16, 17], ledger=ledger)
    assert not ledger.exists() or ledger.read_text() == ""


@pytest.mark.parametrize("offset", [1e-3, -1.0])
def test_bounds_that_differ_from_the_outputs_at_a_point_stop_everything(offset: float):
    class Shifted(Scripted):
        def bound(self, graph, params, box, spec=None, sides="both"):
            bounds = super().bound(graph, params, box, spec, sides)
            return type(bounds)(bounds.lower + offset, None)

    with pytest.raises(SoundnessError, match=r"verifier shifted is wrong .* at eps 0"):
        run(diagonal(), points((0.9, 0.1)), 0.1, "ibp", ("shifted", Shifted(lambda box: torch.ones(len(box)))))


def test_zero_width_pixels_and_eps_zero():
    inputs = points((1.0, 0.0), (0.5, 0.5))
    verdicts = run(diagonal(), inputs, 0.0)
    assert [v.status for v in verdicts] == ["verified", "unknown"], "a tie is neither a proof nor a mistake"
    assert verdicts[0].margin == 1.0
    (clipped,) = run(diagonal(), inputs[:1], 0.4)
    assert clipped.margin == pytest.approx(0.2)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"memory_mb": 1}])
def test_verdicts_do_not_depend_on_the_batch(options: dict):
    model = zoo.make("residual", dtype=torch.float32)
    inputs = torch.rand(7, *zoo.IMAGE, generator=torch.Generator().manual_seed(3))
    labels = model(inputs).argmax(1)
    together = certify(model, inputs, labels, 0.01, attack=QUICK)
    order = [3, 0, 6, 5, 1, 4, 2]
    apart = certify(model, inputs[order], labels[order], 0.01, attack=QUICK, indices=order, **options)
    assert [v.index for v in apart] == order
    for one, other in zip(sorted(apart, key=lambda v: v.index), together, strict=True):
        assert (one.status, one.verified_by, one.predicted) == (
            other.status,
            other.verified_by,
            other.predicted,
        )
        assert one.margins == pytest.approx(other.margins, abs=1e-12)


def test_the_model_is_left_as_it_was_and_grad_modes_do_not_matter():
    model = zoo.make("residual", dtype=torch.float32).train()
    model.norm.eval()
    inputs = torch.rand(2, *zoo.IMAGE)
    with torch.inference_mode():
        inside = certify(model, inputs.clone(), torch.tensor([0, 1]), 0.3, attack=QUICK)
    outside = certify(model, inputs, torch.tensor([0, 1]), 0.3, attack=QUICK)
    assert [v.status for v in inside] == [v.status for v in outside]
    assert model.training
    assert not model.norm.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_progress_counts_images():
    calls = []
    run(diagonal(), points(*[(0.9, 0.1)] * 5), 0.1, batch_size=2, progress=lambda *call: calls.append(call))
    assert [(done, total) for done, total, _ in calls] == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert calls[-1][2]["verified"] == 5


@pytest.mark.skipif(not compat.available(), reason="auto_LiRPA cannot be imported here")
def test_relaxations_of_the_other_backend_certify_too():
    other = build("deeppoly", backend="auto_lirpa")
    (verdict,) = run(paired(), points((0.5, 0.2)), 0.1, "deeppoly", ("lirpa", other))
    assert verdict.margins["lirpa"] == pytest.approx(verdict.margins["deeppoly"], abs=1e-9)
