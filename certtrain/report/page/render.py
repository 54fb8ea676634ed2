"""Fills the templates: one HTML file with its style, its script and its pictures inside, and nothing outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from certtrain.files import replacing

TEMPLATES = Path(__file__).with_name("templates")
# After these, a key or a path may go on in the next line; nowhere else.
BREAKS = re.compile(r"(?<=[./=,:])(?=[^\W\d])")


def write_page(template: str, context: Mapping[str, Any], path: Path) -> Path:
    """Replaces a page at once.

    Args:
        template: A file of `templates`.
        context: What it shows.
        path: The page; its folder exists.
    """
    text = render(template, context)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def render(template: str, context: Mapping[str, Any]) -> str:
    """The text of a page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["breakable"] = breakable
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template(template).render(style=Markup(style), script=Markup(script), **context)


def breakable(text: object) -> Markup:
    """Text that is broken between the parts of a key or a path, and never inside a word."""
    return Markup("<wbr>").join(escape(part) for part in BREAKS.split(str(text)))
