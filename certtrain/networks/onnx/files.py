"""ONNX files on disk, and what can be wrong with them."""

from __future__ import annotations

import gzip
from importlib import import_module
from typing import Any

from certtrain.errors import ConfigError, one_line


def onnx_package() -> Any:
    """The `onnx` package.

    Raises:
        ConfigError: If it is not installed, with the command that installs it.
    """
    try:
        return import_module("onnx")
    except ImportError as error:
        raise ConfigError('ONNX files need the package onnx: pip install "certtrain[onnx]"') from error


def load_model(path: str) -> Any:
    """The onnx.ModelProto of a file, which may be compressed (.gz).

    Raises:
        ConfigError: If it cannot be read, is cut off, or is something else.
    """
    onnx = onnx_package()
    try:
        if path.endswith(".gz"):
            with gzip.open(path, "rb") as file:
                model = onnx.load_model_from_string(file.read())
        else:
            model = onnx.load(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    except Exception as error:  # of protobuf, zlib, and onnx itself for tensors in other files
        raise ConfigError(f"{path}: is no ONNX file, or one that is cut off: {one_line(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise ConfigError(f"{path}: is no ONNX file: it holds no network")
    return model
