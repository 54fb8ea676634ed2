"""Networks of VNN-COMP's shapes, and instances of them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.vnncomp.radii import BelowAttack, Everywhere
from benchmarks.vnncomp.recipes import RECIPES
from benchmarks.vnncomp.workshop import HELD_OUT, Workshop, training_images
from certtrain.networks import trace

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


@pytest.mark.parametrize("name", RECIPES)
def test_shapes(name: str) -> None:
    recipe = RECIPES[name]
    graph = trace(recipe.make().eval(), SHAPES[recipe.data])
    assert graph.num_outputs == 10
    neurons = sum(op.size for _, op in graph.activations)
    expected = {
        "mnist_256x2": 512,
        "mnist_256x4": 1024,
        "mnist_256x6": 1536,
        "mnist_relu_8x200": 1600,
        "mnist_sigmoid_6x200": 1200,
        "mnist_resnet": 4804,
        "cifar10_resnet": 6244,
        "oval_base": 3172,
        "oval_wide": 6244,
        "oval_deep": 6756,
    }
    assert neurons == expected[name]


def test_radii_are_a_share_of_those_at_which_an_attack_succeeds() -> None:
    """Class 1 above 0.5, class 0 below."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2)).requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
    model[1].bias.copy_(torch.tensor([0.5, -0.5]))
    images, labels = torch.tensor([0.4, 0.52, 0.1]).reshape(3, 1, 1, 1), torch.tensor([0, 1, 0])
    found = BelowAttack(share=0.5, most=0.2).of(model, images, labels)
    assert [i for _, i in found] == [0, 1, 2]
    # Bisection leaves an interval of 0.2 / 256, and takes its upper end; the third cannot be changed.
    for (eps, _), smallest in zip(found, (0.1, 0.02, 0.2), strict=True):
        assert smallest <= eps / 0.5 <= smallest + 0.2 / 256 + 1e-6
    assert Everywhere((0.1, 0.2)).of(model, images[:2], labels[:2]) == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]


@pytest.mark.slow
def test_instances_are_held_out_and_the_same_every_time(tmp_path: Path, mnist_folder: Path) -> None:
    said: list[str] = []
    workshop = Workshop({"mnist": str(mnist_folder)}, tmp_path, fast=True, say=said.append)
    found = workshop.instances("mnist_256x2")
    assert said == ["training mnist_256x2: epoch 1 of 1"]
    assert [instance.eps for instance in found] == [0.03] * 15 + [0.05] * 15
    rest, held_out = training_images("mnist", str(mnist_folder))
    assert (len(rest.labels), len(held_out.labels)) == (60_000 - HELD_OUT, HELD_OUT)
    for instance in found[:15]:
        assert (held_out.inputs == instance.image).flatten(1).all(1).any()
        assert not (rest.inputs == instance.image).flatten(1).all(1).any()
        assert int(instance.model(instance.image[None]).argmax()) == instance.label
    assert workshop.accuracy("mnist_256x2") > 0.9
    again = Workshop({"mnist": str(mnist_folder)}, tmp_path, fast=True, say=said.append).instances("mnist_256x2")
    assert len(said) == 1, "kept networks are not trained again"
    assert all(torch.equal(a.image, b.image) for a, b in zip(found, again, strict=True))
    assert torch.equal(found[0].model[1].weight, again[0].model[1].weight)
