"""Margins of a batch by the pairs of classes, which are fewer."""

import torch
from cases import make_case

from certtrain.bounds import build, margin_spec
from certtrain.bounds.substitution.specification import Pairs


def test_margins_of_a_batch_are_those_of_its_images() -> None:
    """Alone, an image has fewer margins than there are pairs."""
    case = make_case("mlp")
    graph, ibp = case.graph, build("ibp")
    inputs = case.inputs.repeat(4, *[1] * (case.inputs.dim() - 1))
    labels = torch.arange(len(inputs)) % graph.num_outputs
    box, spec = make_case("mlp").box(0.1), margin_spec(labels, graph.num_outputs)
    box = type(box)(box.lower.repeat(4, 1, 1, 1)[: len(inputs)], box.upper.repeat(4, 1, 1, 1)[: len(inputs)])
    spec = spec.to(inputs.dtype)
    assert Pairs.of(spec) is not None
    assert Pairs.of(spec[:1]) is None
    together = ibp.bound(graph, case.params, box, spec)
    alone = [ibp.bound(graph, case.params, box[i : i + 1], spec[i : i + 1]) for i in range(len(inputs))]
    torch.testing.assert_close(together.lower, torch.cat([found.lower for found in alone]))
    torch.testing.assert_close(together.upper, torch.cat([found.upper for found in alone]))


def test_other_specifications_are_no_pairs() -> None:
    spec = margin_spec(torch.arange(40) % 10, 10)
    assert Pairs.of(spec) is not None
    for changed in (2 * spec, spec + spec.roll(1, 1), torch.eye(10).expand(40, -1, -1)):
        assert Pairs.of(changed) is None
    scaled = spec.clone()
    scaled[7, 3] *= 0.5
    assert Pairs.of(scaled) is None
