"""Networks of the shapes of VNN-COMP, and robustness properties of them: `python -m benchmarks.vnncomp_networks`.

mnist_fc (Bak et al., arXiv 2109.00498) has fully connected networks of 256 neurons a layer, trained plainly, and asks
about balls of radius 0.03 and 0.05; cifar10_resnet small residual networks trained against attacks, and radii of one or
two steps of a pixel; mnist_resnet is one of these on MNIST, with the radii of mnist_fc. Ours are trained here,
once, and kept; images are training images that were held out, so that whoever tunes on them has seen no test image.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from benchmarks.cases import Images, configuration
from certtrain.cli.assembly.data import make_source
from certtrain.data.batches import as_float
from certtrain.data.splits import stratified_split
from certtrain.errors import CerttrainError, ConfigError

OUT = Path("outputs/benchmarks")
# Of training images: how many are held out, and how many of them each network and radius is asked about.
HELD_OUT, INSTANCES, SEED = 1000, 15, 0
BATCH = 128


class Block(nn.Module):
    """Two convolutions beside one, or beside nothing where the shape stays; ReLU after the sum."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        first, second = nn.Conv2d(channels, out, 3, stride, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.long = nn.Sequential(first, nn.ReLU(), second)
        self.short = nn.Conv2d(channels, out, 1, stride) if (channels, 1) != (out, stride) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] -> [batch, out, height / stride, width / stride]."""
        return torch.relu(self.long(x) + self.short(x))


def fully_connected(depth: int) -> nn.Module:
    """784-256x(depth)-10."""
    hidden = [layer for i in range(depth) for layer in (nn.Linear(256 if i else 784, 256), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, 10))


def residual(channels: int, side: int) -> nn.Module:
    """A convolution, two blocks, and two matrices; for images of side x side pixels, a multiple of four."""
    blocks = [nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), Block(8, 16, 2), Block(16, 16, 1)]
    features = 16 * (side // 4) ** 2
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, 10))


@dataclass(frozen=True)
class Recipe:
    """How a network comes about, and what is asked about it.

    Attributes:
        data: A choice in conf/data.
        make: The network with random weights.
        radii: Of the balls, in pixel units.
        epochs: Of Adam with a rate that falls linearly.
        rate: At first.
        attack: Each batch is moved by one signed gradient step of this size first; 0 for plain training.
    """

    data: str
    make: Callable[[], nn.Module]
    radii: tuple[float, ...]
    epochs: int
    rate: float = 1e-3
    attack: float = 0.0


RADII = {"mnist": (0.03, 0.05), "cifar10": (1 / 255, 2 / 255)}
RECIPES: Mapping[str, Recipe] = {
    **{f"mnist_256x{n}": Recipe("mnist", partial(fully_connected, n), RADII["mnist"], 8) for n in (2, 4, 6)},
    "mnist_resnet": Recipe("mnist", partial(residual, 1, 28), RADII["mnist"], 8, 2e-3, 0.05),
    "cifar10_resnet": Recipe("cifar10", partial(residual, 3, 32), RADII["cifar10"], 8, 2e-3, 2 / 255),
}


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
        """Its properties: for each radius the same images, held out from training and drawn with a seed."""
        model, (_, held_out) = self.network(name), self._images(recipe_of(name).data)
        right = (model(held_out.inputs).argmax(1) == held_out.labels).nonzero().flatten()
        order = torch.randperm(len(right), generator=torch.Generator().manual_seed(SEED))
        drawn = right[order[:INSTANCES]].tolist()
        questions = [(eps, i) for eps in recipe_of(name).radii for i in drawn]
        return [Instance(model, held_out.inputs[i], int(held_out.labels[i]), eps) for eps, i in questions]

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


def recipe_of(name: str) -> Recipe:
    """How a network comes about.

    Raises:
        ConfigError: If there is no such network.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown network '{name}': one of {', '.join(RECIPES)}")
    return RECIPES[name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing and says how accurate each network is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vnncomp_networks", description=__doc__)
    parser.add_argument("--only", default=",".join(RECIPES), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--mnist", metavar="PATH", help="folder with MNIST; default: from the hub")
    parser.add_argument("--cifar10", metavar="PATH", help="folder with CIFAR-10; default: from the hub")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--fast", action="store_true", help="one epoch each, kept apart: shows that it works")
    given, console = parser.parse_args(arguments), Console()
    workshop = Workshop({"mnist": given.mnist, "cifar10": given.cifar10}, given.out, given.fast, console.print)
    try:
        for name in given.only.split(","):
            count = len(workshop.instances(name))
            console.print(f"{name}: {workshop.accuracy(name):.1%} of {HELD_OUT} held-out images, {count} instances")
    except CerttrainError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
