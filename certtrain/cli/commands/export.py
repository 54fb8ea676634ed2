"""`python -m certtrain export`: the question of a run, as files that other verifiers read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from certtrain.certify.ledger import merge_ledger
from certtrain.certify.properties import Property, write_vnnlib
from certtrain.cli.assembly.data import make_source
from certtrain.cli.assembly.network import make_network
from certtrain.cli.configuration.parser import Parser
from certtrain.cli.configuration.schema import RunConfig
from certtrain.cli.job.certification import LEDGER
from certtrain.cli.rundir.directory import RunDirectory, read_run
from certtrain.data.batches import as_float
from certtrain.errors import ConfigError
from certtrain.files import replacing
from certtrain.networks import to_onnx
from certtrain.training.checkpoints import load_network

# Where a run has no `certify.timeout_s`; the seconds are the last column of an instance list, which must have them.
TIMEOUT_S = 300.0
# Below the folder of an export, as the benchmarks of VNN-COMP are laid out.
NETWORK, PROPERTIES, INSTANCES = Path("onnx", "network.onnx"), Path("vnnlib"), Path("instances.csv")


def export_command(arguments: list[str]) -> None:
    """Writes a run's network, and for every test image the property that is to be proved.

    Args:
        arguments: What follows `export` on the command line.

    Raises:
        CerttrainError: If there is no run with a checkpoint, its data cannot be read, or onnx is not installed.
    """
    parser = Parser(
        prog="python -m certtrain export",
        description="Writes what a run certifies as VNN-COMP has it, for other tools: onnx/network.onnx, the weights "
        "that it has judged, normalisation included; with --format=vnnlib, the default, vnnlib/image_N.vnnlib for "
        "the N-th test image, misclassified ones too, at the run's eps, instances.csv with its certify.timeout_s, "
        "and where it has certified, ledger.jsonl: its verdicts, those of all shards in one file.",
    )
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--format", choices=("onnx", "vnnlib"), default="vnnlib", help="the network, or all of it")
    parser.add_argument("--out", type=Path, help="where to write; default: export/ in the run directory")
    parser.add_argument("--limit", type=int, help="the first so many test images; default: the run's certify.limit")
    found = parser.parse_args(arguments)
    if found.limit is not None and found.limit < 1:
        raise ConfigError(f"export: --limit must be at least 1, got {found.limit}")
    exported = Export.of(found.run, found.out or found.run / "export")
    written = exported.network_only() if found.format == "onnx" else exported.everything(found.limit)
    print(f"written: {written}")


@dataclass(frozen=True)
class Export:
    """A run that is written out.

    Attributes:
        run: Its directory.
        config: Its configuration.
        network: With the weights of the best checkpoint, of the last one where no image was held out.
        outputs: How many the network has.
        folder: Where to write.
    """

    run: Path
    config: RunConfig
    network: nn.Module
    outputs: int
    folder: Path

    @staticmethod
    def of(run: Path, folder: Path) -> Export:
        """Finds a run's network; nothing is written, no data are read.

        Raises:
            CerttrainError: If there is no run, or it has no checkpoint yet.
        """
        _, config = read_run(run, "export")
        network, graph = make_network(config, make_source(config))
        load_network(network, RunDirectory(run).judged)
        return Export(run, config, network.eval(), graph.num_outputs, folder)

    def network_only(self) -> str:
        """Writes the network; returns what was written, in words."""
        path = self.folder / NETWORK
        path.parent.mkdir(parents=True, exist_ok=True)
        to_onnx(self.network, make_source(self.config).shape, path)
        return str(path)

    def everything(self, limit: int | None) -> str:
        """Writes network, properties, instance list and verdicts; returns what was written, in words."""
        test = make_source(self.config).load().test
        count = min(len(test), limit or self.config.certify.limit or len(test))
        self.network_only()
        (self.folder / PROPERTIES).mkdir(exist_ok=True)
        images, labels = as_float(test.inputs[:count]), test.labels[:count].tolist()
        rows = [self._instance(number, images[number], label) for number, label in enumerate(labels)]
        with replacing(self.folder / INSTANCES) as partial:
            partial.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        verdicts = merge_ledger(self.run / LEDGER, self.folder / LEDGER)
        known = f", {verdicts} verdicts in {LEDGER}" if verdicts else ""
        return f"{self.folder / INSTANCES}, network and {count} properties beside it{known}"

    def _instance(self, number: int, image: Tensor, label: int) -> str:
        """Writes one image's property; returns its row of the instance list."""
        config, path = self.config, PROPERTIES / f"image_{number}.vnnlib"
        asked = Property.robust(image, label, config.eps, self.outputs, config.clip)
        comment = f"test image {number} of {config.data.name}, label {label}, eps {config.eps:g} in pixel units"
        write_vnnlib(asked, self.folder / path, comment)
        return f"{NETWORK.as_posix()},{path.as_posix()},{config.certify.timeout_s or TIMEOUT_S:g}"
