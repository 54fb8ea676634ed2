"""The reference of the configuration, as Markdown, made from the schema, the files under conf/ and docstrings.

Nothing of it is written by hand, so that it cannot fall behind what is read.
"""

from __future__ import annotations

import io
import os
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from certtrain._paths import config_dir
from certtrain.cli.configuration.parser import COMMANDS
from certtrain.cli.configuration.schema import RunConfig
from certtrain.cli.configuration.sentences import GROUPS, KEYS
from certtrain.cli.help.documented import Choice, Key, annotations_of, described_by, read_choice
from certtrain.cli.help.page import default_choices, help_page
from certtrain.cli.help.presets import presets

# Groups whose choices are whole settings: a table of them instead of their keys.
SETTINGS = ("experiment", "recipe")
# Keys by which a choice calls itself: what reads the configuration asks for them.
OWN_NAMES = ("name", "method")
COMPARISONS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}
COLUMNS = "110"


@dataclass(frozen=True)
class Documented:
    """A key with all that is known about it.

    Attributes:
        key: As its file has it.
        values: What it may be; "" where only what it makes knows.
        meaning: One or more sentences; "" where nobody says it.
    """

    key: Key
    values: str
    meaning: str


@cache
def all_choices() -> tuple[Choice, ...]:
    """Every file of the configuration: the root first, then by group and name."""
    root = config_dir()
    files = sorted(root.rglob("*.yaml"), key=lambda file: (file.parent != root, file))
    return tuple(read_choice(file) for file in files)


def documented(choice: Choice) -> list[Documented]:
    """The keys of a file with their values and meanings."""
    alone = choice.sentence if len(choice.keys) == 1 else ""  # what is said of the file is said of its one key
    return [Documented(key, values_of(key), meaning_of(key) or alone) for key in choice.keys]


def meaning_of(key: Key) -> str:
    """What a key is for: by its file, by what it makes, or by another file that has it, too."""
    if key.comment:
        return key.comment
    words = None if key.target is None else described_by(key.target).get(key.option)
    if words:
        return words
    known = KEYS.get(key.name) or _elsewhere().get(key.name) or _elsewhere().get(f"relaxation.{key.option}")
    return known or ("The choice's own name." if key.option in OWN_NAMES else "")


@cache
def _elsewhere() -> Mapping[str, str]:
    """Comments by key, the first file that has one."""
    found: dict[str, str] = {}
    for choice in all_choices():
        for key in choice.keys:
            if key.comment and choice.group not in SETTINGS:
                found.setdefault(key.name, key.comment)
    return found


def values_of(key: Key) -> str:
    """What a key may be, in words: by the schema, else by the annotations of what it makes."""
    field = _field(RunConfig, key.name.split("."))
    if field is not None:
        return in_words(field.annotation, field.metadata)
    stated = {} if key.target is None else annotations_of(key.target)
    return in_words(stated[key.option], ()) if key.option in stated else ""


def _field(model: type[BaseModel], path: Sequence[str]) -> FieldInfo | None:
    """The field of a dotted key; None below nodes that the schema does not look into."""
    field = model.model_fields.get(path[0])
    if field is None or len(path) == 1:
        return field
    kinds = (field.annotation, *get_args(field.annotation))
    inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return None if inner is None else _field(inner, path[1:])


def in_words(kind: Any, metadata: Iterable[Any]) -> str:
    """A type and its limits, such as "integer ≥ 1, or null"."""
    origin, arguments = get_origin(kind), get_args(kind)
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in metadata
        for name, sign in COMPARISONS.items()
        if getattr(limit, name, None) is not None
    ]
    if origin in (Union, types.UnionType):
        others = [in_words(a, ()) for a in arguments if a is not type(None)]
        text = " ".join([" or ".join(filter(None, others)), ", ".join(limits)]).strip()
        return f"{text}, or null" if type(None) in arguments else text
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (tuple, list, Sequence):
        inner = [in_words(a, ()) for a in arguments if a is not Ellipsis]
        return f"[{', '.join(inner)}]" if len(inner) > 1 else f"list: {inner[0]}" if inner else "list"
    if origin in (dict, Mapping):
        return "{pattern: number}" if arguments[1:] == (float,) else "a node"
    names = {int: "integer", float: "number", str: "text", bool: "`true`, `false`", dict: "a node"}
    return " ".join(filter(None, (names.get(kind, ""), ", ".join(limits))))


def configuration_page() -> str:
    """Every key of every file, group by group."""
    head = [
        "# Every key of the configuration",
        "",
        "Made from `conf/` and the schema. A group is given a choice (`relaxation=ibp`), a key a value (`eps=0.1`). "
        "`python -m certtrain --cfg job` shows what a command line comes to, before anything is run.",
        "",
    ]
    (root,) = (choice for choice in all_choices() if not choice.group)
    parts = [*head, "## Without a group", "", *_table(documented(root))]
    defaults = _defaults()
    for group, purpose in GROUPS.items():
        if group in SETTINGS:
            continue
        parts += ["", f"## {group}", "", f"{purpose[0].upper()}{purpose[1:]}.", ""]
        for choice in (c for c in all_choices() if c.group == group):
            parts += [f"### {group}={choice.name}", "", *_choice(choice, defaults.get(group) == choice.name), ""]
    return "\n".join(parts) + "\n"


def _defaults() -> Mapping[str, str]:
    root = config_dir()
    found: dict[str, str] = {}
    for file in (*root.glob("method/*.yaml"), *root.glob("loss/*.yaml"), root / "config.yaml"):
        found |= default_choices(file)
    return found


def _choice(choice: Choice, is_default: bool) -> Iterator[str]:
    yield choice.sentence + (" **The default.**" if is_default else "")
    if choice.target is not None:
        yield ""
        yield f"Makes `{choice.target}`."
    if choice.keys:
        yield ""
        yield from _table(documented(choice))


def _table(keys: Iterable[Documented]) -> Iterator[str]:
    yield "| key | default | may be | meaning |"
    yield "|---|---|---|---|"
    for found in keys:
        cells = (f"`{found.key.name}`", f"`{found.key.default}`", found.values, found.meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def settings_page() -> str:
    """Every experiment with what was published, and every recipe."""
    published = presets()
    lines = [
        "# Published settings",
        "",
        "`experiment=NAME` runs one. Percentages are those of the source; a question mark stands for what is unknown.",
        "",
        "| `experiment=` | natural % | certified % | verified by | source | not known |",
        "|---|---|---|---|---|---|",
    ]
    for p in published.values():
        figures = ("?" if value is None else f"{value:g}" for value in (p.natural, p.certified))
        lines.append("| " + " | ".join((f"`{p.name}`", *figures, p.verifier, p.source, p.unknown)) + " |")
    for group, title in (("experiment", "Other experiments"), ("recipe", "Recipes that experiments share")):
        lines += ["", f"## {title}", "", "| | |", "|---|---|"]
        chosen = (c for c in all_choices() if c.group == group and c.name not in published)
        lines += [f"| `{group}={c.name}` | {c.sentence} |" for c in chosen]
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """What every command says with --help."""
    parts = ["# Commands", "", "What each says with `--help`.", "", "## python -m certtrain", "", *_block(help_page())]
    for name, (module, function) in COMMANDS.items():
        parts += ["", f"## {name}", "", *_block(_help_of(module, function))]
    return "\n".join(parts) + "\n"


def _help_of(module: str, function: str) -> str:
    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS  # where argparse looks for the width of its lines
    try:
        with redirect_stdout(printed), suppress(SystemExit):
            getattr(import_module(module), function)(["--help"])
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {} if before is None else {"COLUMNS": before}
    return printed.getvalue()


def _block(text: str) -> list[str]:
    return ["```text", text.rstrip(), "```"]


# File name -> what makes the page.
PAGES = {"configuration.md": configuration_page, "settings.md": settings_page, "commands.md": commands_page}
