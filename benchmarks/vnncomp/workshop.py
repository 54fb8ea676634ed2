"""Networks of VNN-COMP's shapes, trained once and kept, and robustness properties of them.

Properties are about training images that were held out, so that whoever tunes on them has seen no test image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.cases import Images, configuration
from benchmarks.vnncomp.recipes import Recipe, recipe_of
from certtrain.cli.assembly.data import make_source
from certtrain.data.batches import as_float
from certtrain.data.splits import stratified_split

OUT = Path("outputs/benchmarks")
# Of training images, how many are held out.
HELD_OUT, SEED = 1000, 0
BATCH = 128


@dataclass(frozen=True)
class Instance:
    """Is a network robust on a ball? It classifies the centre correctly.

    Attributes:
        model: In eval mode, float32.
        image: [channels, height, width] in [0, 1], which the ball is cut to.
        label: Its class.
        eps: The radius.
    """

    model: nn.Module
    image: Tensor
    label: int
    eps: float


@dataclass(frozen=True)
class Workshop:
    """Where data are and networks are kept.

    Attributes:
        data: Choice in conf/data -> its folder; from the hub where there is none.
        out: Networks are kept in a folder below.
        fast: One epoch instead of all: shows that it works. Such networks are kept apart.
        say: Shows in one line what is being done.
    """

    data: Mapping[str, str | None]
    out: Path = OUT
    fast: bool = False
    say: Callable[[str], None] = print

    def network(self, name: str) -> nn.Module:
        """A network, trained unless it was before.

        Raises:
            CerttrainError: If there is no such network, or its data cannot be read.
        """
        recipe = recipe_of(name)
        path = self.out / "vnncomp" / f"{name}{'_fast' if self.fast else ''}.pt"
        module = recipe.make()
        if not path.is_file():
            self._train(module, recipe, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Renamed when complete: an interrupted training must not pass for a finished one.
            unfinished = path.with_suffix(".unfinished")
            torch.save(module.state_dict(), unfinished)
            unfinished.replace(path)
        module.load_state_dict(torch.load(path, weights_only=True))
        return module.eval().requires_grad_(False)

    def instances(self, name: str) -> list[Instance]:
        """Its properties: images held out from training and drawn with a seed, on the balls that the recipe chooses."""
        recipe = recipe_of(name)
        model, (_, held_out) = self.network(name), self._images(recipe.data)
        right = (model(held_out.inputs).argmax(1) == held_out.labels).nonzero().flatten()
        order = torch.randperm(len(right), generator=torch.Generator().manual_seed(SEED))
        drawn = right[order[: recipe.instances]]
        images, labels = held_out.inputs[drawn], held_out.labels[drawn]
        questions = recipe.radii.of(model, images, labels)
        return [Instance(model, images[i], int(labels[i]), eps) for eps, i in questions]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of its images."""
        return make_source(configuration(recipe_of(name).data, "mlp")).shape

    def accuracy(self, name: str) -> float:
        """Share of the images held out that are classified correctly."""
        _, held_out = self._images(recipe_of(name).data)
        return float((self.network(name)(held_out.inputs).argmax(1) == held_out.labels).double().mean())

    def _images(self, data: str) -> tuple[Images, Images]:
        return training_images(data, self.data.get(data))

    def _train(self, module: nn.Module, recipe: Recipe, name: str) -> None:
        images, _ = self._images(recipe.data)
        steps = -(-len(images.labels) // BATCH)
        epochs = 1 if self.fast else recipe.epochs
        torch.manual_seed(SEED)
        for layer in module.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                layer.reset_parameters()
        optimizer = torch.optim.Adam(module.parameters(), recipe.rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, epochs * steps)
        for epoch in range(epochs):
            self.say(f"training {name}: epoch {epoch + 1} of {epochs}")
            for rows in torch.randperm(len(images.labels)).split(BATCH):
                inputs, labels = images.inputs[rows], images.labels[rows]
                if recipe.attack:
                    inputs = attacked(module, inputs, labels, recipe.attack)
                optimizer.zero_grad()
                F.cross_entropy(module(inputs), labels).backward()
                optimizer.step()
                schedule.step()


def attacked(module: nn.Module, inputs: Tensor, labels: Tensor, eps: float) -> Tensor:
    """One signed gradient step from a random start (Wong et al., ICLR 2020), within the ball and [0, 1]."""
    start = (inputs + eps * (2 * torch.rand_like(inputs) - 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(module(start), labels), start)
    moved = start.detach() + 1.25 * eps * gradient.sign()
    return torch.maximum(torch.minimum(moved, inputs + eps), inputs - eps).clamp(0, 1)


@lru_cache
def training_images(data: str, path: str | None) -> tuple[Images, Images]:
    """Training images of a data set, and those held out from them: always the same ones."""
    source = replace(make_source(configuration(data, "mlp")), path=path)
    source.check()
    pair = source.load().train
    rest, held_out = (Images(as_float(pair.inputs[r]), pair.labels[r]) for r in _split(pair.labels))
    return rest, held_out


def _split(labels: Tensor) -> tuple[Tensor, Tensor]:
    return stratified_split(labels, HELD_OUT, SEED)
