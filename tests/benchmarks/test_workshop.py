"""Networks of VNN-COMP's shapes, and instances of them."""

from pathlib import Path

import pytest
import torch

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
    }
    assert neurons == expected[name]


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
