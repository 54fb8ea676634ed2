"""What files of the configuration say about their own keys: comments, defaults, and what a `_target_` documents."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object

from certtrain._paths import config_dir

# Nodes at the root of a file that are no keys of a run: how files are put together, and Hydra's own.
NOT_TYPED = ("defaults", "hydra")
# Sections of a docstring that describe options; an entry begins one step further in.
_SECTION = re.compile(r"^(?:Args|Attributes):\n((?: +.*\n|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+)(?: \([^)\n]*\))?:((?: .*)?(?:\n {5,}.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Key:
    """A key of one file of the configuration.

    Attributes:
        name: Dotted, from the root, as it is typed.
        default: Its value as the file writes it.
        comment: What the file says above it or beside it; "" for nothing.
        target: The dotted name of what the node of the key makes; None where it makes nothing.
    """

    name: str
    default: str
    comment: str
    target: str | None

    @property
    def option(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Choice:
    """A file of the configuration.

    Attributes:
        group: Its folder below conf/, such as "pgpe/noise"; "" for conf/config.yaml.
        name: What the group is given.
        sentence: What the file begins with.
        target: The dotted name of what it makes; None where it makes nothing.
        keys: In the order of the file, without `_target_`.
    """

    group: str
    name: str
    sentence: str
    target: str | None
    keys: tuple[Key, ...]


def read_choice(file: Path, root: Path | None = None) -> Choice:
    """Reads a file of the configuration with its comments.

    Args:
        file: Below the root.
        root: The folder of the groups; None for that of certtrain.
    """
    group = file.parent.relative_to(root or config_dir()).as_posix().removeprefix(".")
    text = file.read_text(encoding="utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    in_root = not group or "# @package _global_" in comments
    sentence = next((line.lstrip("# ") for line in comments if not line.startswith("# @package")), "")
    node = yaml.compose(text)
    if not isinstance(node, yaml.MappingNode):
        return Choice(group, file.stem, sentence, None, ())
    prefix = "" if in_root else group.replace("/", ".") + "."
    keys = tuple(_keys(node, prefix, _Comments(text.splitlines(), sentence)))
    return Choice(group, file.stem, sentence, _target(node), keys)


@dataclass(frozen=True)
class _Comments:
    """The lines of a file, and the sentence that is about all of it."""

    lines: list[str]
    sentence: str

    def of(self, line: int) -> str:
        """The comment directly above a line, in the same column, and the one behind the value."""
        text = self.lines[line]
        above: list[str] = []
        number, begins = line - 1, " " * (len(text) - len(text.lstrip())) + "#"
        while number >= 0 and self.lines[number].startswith(begins):
            words = self.lines[number].strip().lstrip("# ")
            if words == self.sentence or words.startswith("@package"):
                break
            above.insert(0, words)
            number -= 1
        return " ".join([*above, text.partition(" # ")[2]]).strip()

    def written(self, node: yaml.Node) -> str:
        """A value as it stands there."""
        start, end = node.start_mark, node.end_mark
        if start.line == end.line:
            return self.lines[start.line][start.column : end.column]
        value = yaml.safe_load(yaml.serialize(node))
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()


def _keys(node: yaml.MappingNode, prefix: str, comments: _Comments) -> Iterator[Key]:
    """The leaves of a mapping; a comment above a mapping of one line is about all of its keys."""
    target = _target(node)
    for key, value in node.value:
        # What Hydra reads itself (_target_, _recursive_, ...) is no option.
        if key.value.startswith("_") or (key.start_mark.column == 0 and key.value in NOT_TYPED):
            continue
        name, comment = prefix + key.value, comments.of(key.start_mark.line)
        if not isinstance(value, yaml.MappingNode) or not value.value:
            yield Key(name, comments.written(value), comment, target)
        elif value.flow_style:
            yield from (Key(f"{name}.{k.value}", comments.written(v), comment, target) for k, v in value.value)
        else:
            yield from _keys(value, f"{name}.", comments)


def _target(node: yaml.MappingNode) -> str | None:
    return next((value.value for key, value in node.value if key.value == "_target_"), None)


def described_by(target: str) -> Mapping[str, str]:
    """What the docstring of a `_target_` says about its options, by name; of other libraries the first sentence.

    Args:
        target: A dotted name.
    """
    made = get_object(target)
    kinds = reversed(made.__mro__) if inspect.isclass(made) else (made,)
    found: dict[str, str] = {}
    for text in filter(None, (kind.__doc__ for kind in kinds)):
        for section in _SECTION.findall(inspect.cleandoc(text) + "\n"):
            found |= {name: " ".join(words.split()) for name, words in _ENTRY.findall(section)}
    if target.startswith("certtrain."):
        return found
    return {name: words.partition(". ")[0].rstrip(".") + "." for name, words in found.items() if words}


def annotations_of(target: str) -> Mapping[str, Any]:
    """The types of the options of a `_target_`, as far as they are stated, by name."""
    try:
        signature = inspect.signature(get_object(target), eval_str=True)
    except (NameError, TypeError, ValueError):  # types that only a type checker imports
        return {}
    stated = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return {name: kind for name, kind in stated.items() if kind is not inspect.Parameter.empty}
