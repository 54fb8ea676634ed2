"""`python -m certtrain.cli.job.rank DIRECTORY`: one rank of a run, started by `supervisor`."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from certtrain.cli.configuration.schema import plain
from certtrain.cli.job.failure import keeping_traceback
from certtrain.cli.job.supervisor import LOST, REFUSED
from certtrain.cli.process.imports import import_torchmetrics
from certtrain.cli.process.memory import keep_freed_memory
from certtrain.cli.process.output import tolerate_any_encoding
from certtrain.errors import CerttrainError


def main() -> int:
    """Runs one rank; the exit code says to the supervisor what became of it."""
    directory = Path(sys.argv[1])
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    tolerate_any_encoding()
    keep_freed_memory()
    rank = os.environ["RANK"]
    _configure_logging(directory, rank)
    import_torchmetrics()
    from certtrain.cli.job import cluster
    from certtrain.cli.job.entry import run_in
    from certtrain.gradients.distributed import PeerLost

    try:
        environment = cluster.detect()
        assert environment is not None
        cluster.join(environment)
        config = OmegaConf.load(directory / "config.yaml")
        assert isinstance(config, DictConfig)
        with keeping_traceback(directory):
            run_in(directory, plain(config))
    except CerttrainError as error:
        (directory / "ranks" / f"{rank}.error").write_text(f"{error}\n", encoding="utf-8")
        return LOST if isinstance(error, PeerLost) else REFUSED
    except KeyboardInterrupt:
        return 130
    return 0


def _configure_logging(directory: Path, rank: str) -> None:
    """As conf/config.yaml has it for a job of one process: the first rank goes on with its log."""
    if rank == "0":
        form = "[%(asctime)s %(levelname)s] %(message)s"
        logging.basicConfig(filename=directory / "certtrain.log", encoding="utf-8", level=logging.INFO, format=form)


def _end_with_supervisor() -> None:
    """The supervisor never writes: this read ends when it does."""
    os.read(0, 1)
    os._exit(LOST)


if __name__ == "__main__":
    sys.exit(main())
