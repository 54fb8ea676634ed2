"""Checkpoints: plain containers and tensors only, and a file is replaced in one step or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from certtrain.errors import CerttrainError

PREFIX = "network."


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a killed process leaves the old file or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """See Lightning's `CheckpointIO`."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def checkpoint_callbacks(directory: Path) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    """best.ckpt, chosen by certified validation accuracy, and last.ckpt, replaced after every epoch.

    Two callbacks: Lightning's `save_last` writes only when the best improves.
    """
    best = ModelCheckpoint(
        directory, filename="best", monitor="val/certified_accuracy", mode="max", enable_version_counter=False
    )
    last = ModelCheckpoint(directory, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    return best, last


def network_state(path: Path) -> dict[str, Tensor]:
    """The network's state_dict in a checkpoint of `CertifiedTraining`.

    Raises:
        CerttrainError: If the file is absent or is no such checkpoint.
    """
    if not path.is_file():
        raise CerttrainError(f"no checkpoint at {path}")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = checkpoint.get("state_dict", {})
    network = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    if not network:
        raise CerttrainError(f"{path} holds no network trained by certtrain")
    return network


def load_network(network: nn.Module, path: Path) -> None:
    """Loads a checkpoint's weights into a network of the same architecture.

    Raises:
        CerttrainError: If the file is absent or belongs to another architecture.
    """
    state = network_state(path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CerttrainError(f"{path} belongs to another architecture: {str(error).splitlines()[1].strip()}") from error
