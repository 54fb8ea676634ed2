"""What proofs in floating point cost, and what they leave unproved: `python -m benchmarks.arithmetic`.

Margins of one batch in `certify.arithmetic=float64` and in `sound`, in turns, on fully connected networks in the shapes
of VNN-COMP's mnistfc, and on convolutional ones, all trained on digits.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.cases import Images
from benchmarks.plans import Limits
from benchmarks.tightness import BATCH, RATE, STEPS, digits
from benchmarks.timing import alternate
from certtrain.bounds import Box, build, margin_spec, relaxations
from certtrain.certify.arithmetic import ARITHMETICS
from certtrain.certify.network import Network

RADII = (0.005, 0.02, 0.05)
LIMITS = Limits(3, 9, 2.0)
# Of relaxations that take a second for an image, so many images.
IMAGES_OF = {"alpha_crown": 8}


def fully_connected(depth: int) -> nn.Module:
    """So many hidden layers of 256."""
    hidden = [layer for k in range(depth) for layer in (nn.Linear(64 if k == 0 else 256, 256), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, 10))


def convolutional() -> nn.Module:
    """Two convolutions, one of them with batch norm, and a matrix."""
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))


def large() -> nn.Module:
    """cnn3 on images of 32 x 32."""
    layers = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 10))


@dataclass(frozen=True)
class Trial:
    """A network, and what it is asked about.

    Attributes:
        make: The network with random weights.
        images: How many.
        enlarged: How many pixels beside each other, and below, each pixel of digits becomes.
    """

    make: Callable[[], nn.Module]
    images: int = 100
    enlarged: int = 1


NETWORKS: Mapping[str, Trial] = {
    "256x2": Trial(lambda: fully_connected(2)),
    "256x4": Trial(lambda: fully_connected(4)),
    "256x6": Trial(lambda: fully_connected(6)),
    "convolutional": Trial(convolutional),
    "cnn3, 32 x 32": Trial(large, images=4, enlarged=4),
}


def trained(trial: Trial) -> tuple[Network, Images]:
    """By plain cross-entropy; with test images that it classifies correctly."""
    torch.manual_seed(0)
    module, images, factor = trial.make(), digits(), trial.enlarged
    pixels = images.inputs.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    train, test = Images(pixels[:1200], images.labels[:1200]), Images(pixels[1200:], images.labels[1200:])
    optimizer = torch.optim.Adam(module.parameters(), RATE / 5)
    for _ in range(STEPS):
        rows = torch.randperm(len(train.inputs))[:BATCH]
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(train.inputs[rows]), train.labels[rows]).backward()
        optimizer.step()
    network = Network.of(module.eval(), pixels.shape[1:])
    with torch.no_grad():
        correct = network.logits(test.inputs).argmax(1) == test.labels
    return network, Images(test.inputs[correct][: trial.images], test.labels[correct][: trial.images])


def measure(network: Network, images: Images, relaxation: str, eps: float) -> tuple[list[int], float, float]:
    """Images proved in each arithmetic, the largest difference of margins that both prove, and the ratio of times."""
    box = Box.linf(images.inputs.double(), eps)
    spec, bounds = margin_spec(images.labels, 10), build(relaxation)

    def margins(name: str) -> Callable[[], Tensor]:
        return lambda: ARITHMETICS[name].smallest_margins(bounds, network, box, spec)

    with torch.no_grad():
        exact, proved = (margins(name)() for name in ARITHMETICS)
        seconds = alternate([margins(name) for name in ARITHMETICS], LIMITS)
    both = (exact > 0) & (proved > 0)
    lost = float((exact - proved)[both].max()) if both.any() else 0.0
    ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
    return [int((x > 0).sum()) for x in (exact, proved)], lost, ratio


def main() -> None:
    """Says what is measured, then prints the table."""
    columns = ("network", "images", "relaxation", "eps", *(f"proved, {name}" for name in ARITHMETICS))
    console = Console(width=120)
    table = Table(*columns, "largest loss of margin", "time, sound / float64", title="images of digits")
    for name, trial in NETWORKS.items():
        network, all_images = trained(trial)
        for relaxation in relaxations():
            console.print(f"{name}, {relaxation}")
            images = all_images.first(IMAGES_OF.get(relaxation, trial.images))
            for eps in RADII:
                proved, lost, ratio = measure(network, images, relaxation, eps)
                question = name, str(len(images.labels)), relaxation, f"{eps:g}"
                table.add_row(*question, *map(str, proved), f"{lost:.1e}", f"{ratio:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
