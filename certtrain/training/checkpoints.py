"""Checkpoints: plain containers and tensors only, and a file is replaced in one step or not at all."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from certtrain.errors import CerttrainError, one_line
from certtrain.files import naming

PREFIX = "network."
# In a checkpoint: averaged weights and buffers of the network, if its run averages.
AVERAGED = "averaged"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a killed process leaves the old file or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """See Lightning's `CheckpointIO`."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with naming(target):
            try:
                with temporary.open("wb") as file:
                    _save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """See Lightning's `CheckpointIO`; tensors and plain containers only, on the CPU."""
        return read_checkpoint(Path(path))


def _save(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    """torch.save, which ends a file that could not be written with an error about its own positions in it."""
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """What a checkpoint holds: tensors and plain containers.

    Args:
        path: The file.
        mmap: Leaves tensors in the file until they are used: for whoever wants a number out of a large checkpoint.

    Raises:
        CerttrainError: If the file is absent or damaged.
    """
    if not path.is_file():
        raise CerttrainError(f"no checkpoint at {path}")
    try:
        whole = zipfile.is_zipfile(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap) if whole else None
    except Exception as error:  # whatever a program that bytes are run as may do
        raise CerttrainError(f"{path} is no checkpoint that can be read: {one_line(error)}") from error
    if not whole:
        raise CerttrainError(f"{path} is no checkpoint that can be read: it is of another kind, or cut off")
    if not isinstance(checkpoint, dict):
        raise CerttrainError(f"{path} is no checkpoint: it holds no dictionary")
    return checkpoint


def remove_leftovers(directory: Path) -> None:
    """Removes what a process that was killed while saving left beside its checkpoints."""
    for partial in directory.glob(".*.ckpt.*"):
        partial.unlink(missing_ok=True)


def network_state(path: Path) -> dict[str, Tensor]:
    """The state_dict of the network that a file stands for.

    Args:
        path: A checkpoint of `CertifiedTraining`, whose averaged weights count if its run averages; or what
            `torch.save(network.state_dict(), path)` writes.

    Raises:
        CerttrainError: If the file is absent or is neither.
    """
    found = read_checkpoint(path)
    if found and all(isinstance(value, Tensor) for value in found.values()):
        return found
    averaged = found.get(AVERAGED) or {}
    return {**unaveraged_state(path), **averaged}


def is_averaged(path: Path) -> bool:
    """Whether a checkpoint stands for an average of weights."""
    return bool(read_checkpoint(path, mmap=True).get(AVERAGED))


def unaveraged_state(path: Path) -> dict[str, Tensor]:
    """The state_dict of the network that was being trained, whatever its run averages; see `network_state`."""
    state = read_checkpoint(path).get("state_dict")
    entries = state.items() if isinstance(state, dict) else ()
    network = {name.removeprefix(PREFIX): value for name, value in entries if str(name).startswith(PREFIX)}
    if not network or not all(isinstance(value, Tensor) for value in network.values()):
        raise CerttrainError(f"{path} holds no network trained by certtrain")
    return network


def load_network(network: nn.Module, path: Path) -> None:
    """Loads the weights that a checkpoint stands for into a network of the same architecture; see `network_state`.

    Raises:
        CerttrainError: If the file is absent or belongs to another architecture.
    """
    load_state(network, network_state(path), path)


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuses weights with which nothing could be computed.

    Args:
        state: What was read.
        path: Where.

    Raises:
        CerttrainError: If a number is not finite; it names the tensor.
    """
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CerttrainError(f"{path}: {name} holds numbers that are not finite")


def load_state(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Loads what was read from a checkpoint.

    Raises:
        CerttrainError: If it belongs to another architecture.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CerttrainError(f"{path} belongs to another architecture: {str(error).splitlines()[1].strip()}") from error
