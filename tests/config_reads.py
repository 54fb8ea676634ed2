"""Which keys of the configuration are read while something runs.

A read is an attribute of an object of the very class that declares the key, a key of the resolved configuration, or a
value that another key's interpolation takes. What validators look at while a configuration is parsed is no read.
"""

import ast
import copy
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from certtrain.cli.configuration.schema import plain

Plants = dict[str, tuple[type, Any]]


def part_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a node, which may be absent."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


class Reads:
    """What is declared and what was read, as dotted keys.

    Args:
        root: The model of the whole configuration.
        plants: Keys, with type and default, that every node gets that does not have them already.
    """

    def __init__(self, root: type[BaseModel], plants: Plants | None = None) -> None:
        self.declared: set[str] = set()
        self.planted: set[str] = set()
        self.found: set[str] = set()
        self._parsing = False
        self.model = self._watched(root, "", plants or {})
        # The outermost class alone is asked to parse.
        self.model.model_validate = classmethod(self._parse)

    @property
    def unread(self) -> set[str]:
        """Declared keys that nothing has read; a node is read with its first key."""
        nodes = {key.rsplit(".", n)[0] for key in self.found for n in range(1, key.count(".") + 1)}
        return self.declared - self.found - nodes

    def node(self, composed: DictConfig) -> dict[str, Any]:
        """The resolved configuration, whose keys count as read where they are asked for, and what it interpolates."""
        text = OmegaConf.to_yaml(OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"]))
        self.found |= {name for name in re.findall(r"\$\{([\w.]+)\}", text) if name in self.declared}
        return Asked(self, plain(composed))

    def watch(self, monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
        """Counts what a module reads of configurations that Hydra hands it."""
        reads, plain = self, DictConfig.__getattr__

        def getter(self: DictConfig, name: str) -> Any:
            if sys._getframe(1).f_globals.get("__name__") == reader and not name.startswith("_"):
                reads.see(self._get_full_key(name))
            return plain(self, name)

        monkeypatch.setattr(DictConfig, "__getattr__", getter)

    def see(self, key: str) -> None:
        if key in self.declared and not self._parsing:
            self.found.add(key)

    def _watched(self, model: type[BaseModel], prefix: str, plants: Plants) -> type[BaseModel]:
        """A model of the same keys that tells which of them are asked for, and the planted ones."""
        fields: dict[str, Any] = {name: plant for name, plant in plants.items() if name not in model.model_fields}
        self.planted |= {prefix + name for name in fields}
        for name, field in model.model_fields.items():
            if (part := part_of(field)) is None:
                continue
            if get_origin(field.annotation) is dict:  # nodes of one kind, under names of their own
                each = self._watched(part, f"{prefix}{name}.*.", plants)
                fields[name] = (dict[str, each], copy.copy(field))
            else:
                watched: Any = self._watched(part, f"{prefix}{name}.", plants)
                fields[name] = (watched if field.annotation is part else watched | None, copy.copy(field))
        made = create_model(model.__name__, __base__=model, **fields)
        names = frozenset(made.model_fields)
        self.declared |= {prefix + name for name in names}

        def getter(found: BaseModel, name: str) -> Any:
            if name in names:
                self.see(prefix + name)
            return model.__getattribute__(found, name)

        made.__getattribute__ = getter
        return made

    def _parse(self, model: type[BaseModel], node: Any) -> BaseModel:
        self._parsing = True
        try:
            return BaseModel.model_validate.__func__(model, node)
        finally:
            self._parsing = False


class Asked(dict):
    """A node that tells which of its keys are asked for by name; copies and iterations tell nothing."""

    def __init__(self, reads: Reads, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._reads = reads

    def __getitem__(self, key: str) -> Any:
        self._reads.see(key)
        return super().__getitem__(key)


def options_in(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Target and option of everything that a configuration passes to a `_target_`."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from options_in(value)
        elif "_target_" in node and not name.startswith("_"):
            yield str(node["_target_"]), name


def uses(target: Any, option: str) -> bool:
    """Whether an option of a class or function is used.

    A dataclass has to read it as `self.<option>` elsewhere than where arguments are checked; what is no dataclass has
    to name the parameter in its body.
    """
    if not dataclasses.is_dataclass(target):
        body = ast.parse(textwrap.dedent(inspect.getsource(target.__init__ if isinstance(target, type) else target)))
        return any(isinstance(node, ast.Name) and node.id == option for node in ast.walk(body))
    kinds = [kind for kind in target.__mro__ if kind.__module__.startswith("certtrain.")]
    trees = [ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0] for kind in kinds]
    parts = [part for tree in trees for part in tree.body if getattr(part, "name", None) != "__post_init__"]
    read = [node for part in parts for node in ast.walk(part) if isinstance(node, ast.Attribute)]
    return any(node.attr == option and isinstance(node.value, ast.Name) and node.value.id == "self" for node in read)
