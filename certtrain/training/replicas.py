"""Lightning's part of a run on several ranks: every rank trains its own copy, nothing wraps the module.

Gradients are added up by `Ranks.sum` once per generation, so torch's DistributedDataParallel has nothing to reduce; it
would refuse a population's module, which never runs a backward pass.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from certtrain.errors import CerttrainError
from certtrain.gradients.distributed import Distributed


class RanksDiffer(CerttrainError):
    """Parameters that must be equal on all ranks are not."""


class Replicas(DDPStrategy):
    """One process per device with equal weights, Lightning's DDP without its reducer."""

    def configure_ddp(self) -> None:
        """Gives every rank the first one's weights and buffers; the module stays as it is."""
        assert self.model is not None
        with torch.no_grad():
            for tensor in self.model.state_dict().values():
                dist.broadcast(tensor, src=0)


def fingerprint(module: nn.Module) -> Tensor:
    """[4] int64: SHA-256 of the bits of all parameters and buffers, in order."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.int64)


class SameParameters(Callback):
    """Stops a run whose ranks have drifted apart; looks after every epoch, and before last.ckpt is written inside one.

    Args:
        every: Generations between two looks.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See `Callback`."""
        if trainer.global_step % self.every == 0:
            self._compare(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        self._compare(trainer, pl_module)

    def _compare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises `RanksDiffer` on every rank, naming those that differ from the first one."""
        own = fingerprint(pl_module.network).to(trainer.strategy.root_device)  # type: ignore[arg-type]
        found = [torch.empty_like(own) for _ in range(trainer.world_size)]
        dist.all_gather(found, own)
        different = [str(rank) for rank, other in enumerate(found) if not torch.equal(other, found[0])]
        if different:
            raise RanksDiffer(
                f"epoch {trainer.current_epoch}: the parameters of rank {', '.join(different)} differ from those of "
                "rank 0: the ranks do not compute the same update"
            )


class CommunicationReport(Callback):
    """Says once what a generation sends; None of it depends on how many ranks there are.

    Args:
        ranks: Whose traffic is counted.
    """

    def __init__(self, ranks: Distributed) -> None:
        self.ranks = ranks
        self._told = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the method's first generation."""
        traffic, layout = self.ranks.traffic, self.ranks.layout
        if self._told or not traffic.calls:  # a warm start has ranks of its own
            return
        self._told = True
        pl_module.print(
            f"{layout.size} ranks, {layout.per_group} per part of the population: "
            f"{traffic.scalars} losses and {traffic.numbers:,} numbers of a gradient exchanged per step"
        )
        sent = {"communication/losses": traffic.scalars, "communication/gradient_numbers": traffic.numbers}
        for logger in trainer.loggers:
            logger.log_metrics({"ranks": layout.size, **sent}, step=trainer.global_step - 1)
