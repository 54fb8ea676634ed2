"""`${measured:shape}` and the like in a configuration of data: found in the data when the configuration is resolved.

The numbers stand in config.yaml then, so that a run that goes on, or is certified, has the same ones.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from certtrain.errors import ConfigError

NAME = "measured"
ARRAYS = "certtrain.data.arrays.ArraySource"


def register() -> None:
    """Lets configurations name what is measured; again and again is once."""
    OmegaConf.register_new_resolver(NAME, _measured, replace=True)


def _measured(what: str, *, _root_: DictConfig) -> Any:
    """One fact of the data that the configuration names.

    Raises:
        CerttrainError: If the data cannot be read; one line.
    """
    from certtrain.data.measuring import measure_arrays, measure_images

    source = _root_.data.source
    if source._target_ == ARRAYS:
        facts = measure_arrays(source.path, source.name)
    else:
        if not (source.path or source.hub):
            raise ConfigError(f"data={source.name}: set data.path to a folder, or data.source.hub to OWNER/NAME")
        facts = measure_images(
            source.name,
            source.hub or "",
            source.path,
            (source.image_column, source.label_column),
            (source.train_split, source.test_split),
            _declared(source, "shape"),
            _declared(source, "num_classes"),
        )
    found = getattr(facts, what)
    return OmegaConf.create(list(found)) if isinstance(found, tuple) else found


def _declared(source: DictConfig, key: str) -> Any:
    """What somebody has set instead; None where it is to be measured."""
    if OmegaConf.is_interpolation(source, key):
        return None
    value = source[key]
    return tuple(value) if OmegaConf.is_config(value) else value
