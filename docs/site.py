"""What the site adds to the pages: sections from folders, a reference from the code, formulas as pictures.

MkDocs calls the functions `on_...`; mkdocs.yml names this file.
"""

import html
import io
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
from matplotlib import mathtext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pymdownx.superfences import SuperFencesException

# Tabs of the site, in order: a title, and pages or a folder. A page that is put into a folder needs no line here.
SECTIONS: tuple[tuple[str, str | tuple[str, ...]], ...] = (
    ("Start", "index.md"),
    ("Tutorial", "tutorial.md"),
    ("How-to", "how-to/"),
    ("Concepts", "concepts/"),
    ("Reference", "reference/"),
    ("Coming from …", "coming-from.md"),
    ("Results", ("results.md", "performance.md", "scaling.md")),
    ("Design", "design/"),
    ("Project", ("contributing.md", "changelog.md")),
)
INTRODUCTIONS = {
    "how-to/": "# How-to\n\nOne task, one page.",
    "concepts/": "# Concepts\n\nWhat the words mean, with formulas.",
    "reference/": "# Reference\n\nMade from the code: it says what this version does.",
    "design/": "# Design\n\nWhy things are as they are: one decision, half a page.",
}
# Packages whose public names are described, each on a page of its own.
PACKAGES = ("bounds", "networks", "losses", "gradients", "attacks", "certify", "testing")
# Pages that stand outside of docs/, where people look for them.
ELSEWHERE = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
# A link; a word in front of a paragraph that is no part of its sentence; a sentence, in which code may have full stops.
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_LEAD = re.compile(r"^\*\*[^*]+\.\*\* ")
_SENTENCE = re.compile(r"(?:`[^`]*`|.)*?(?:\.(?=\s|$)|$)")
# What is left of a formula's picture: neither a date nor a background nor styles, which would be those of the page.
_NOT_OF_A_FORMULA = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|<g id=\"patch_1\">.*?</g>|<!--.*?-->", re.S)
_SIZE = re.compile(r'width="([\d.]+)pt" height="([\d.]+)pt"')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Blocks of the kind `math` become pictures."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "formula", "format": formula})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds pages that are made, and the sections."""
    root = Path(config.config_file_path).parent
    for uri, content in made_pages(root):
        files.append(File.generated(config, uri, content=content))
    for folder, introduction in INTRODUCTIONS.items():
        files.append(File.generated(config, f"{folder}index.md", content=_index(folder, introduction, files)))
    config.nav = [{title: _section(where, files)} for title, where in SECTIONS]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to pages outside of docs/, as they are right in the repository, lead to where the site has them."""
    up = "../" * page.file.src_uri.count("/")
    for here, source in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{up}{source}", f"]({up}{here}")
    return markdown


def made_pages(root: Path) -> Iterator[tuple[str, str]]:
    """Address and Markdown of every page that nobody writes."""
    from certtrain.cli.help import reference

    for name, page in reference.PAGES.items():
        yield f"reference/{name}", page()
    for name, text in api_pages():
        yield f"reference/{name}", text
    for name, source in ELSEWHERE.items():
        text = (root / source).read_text(encoding="utf-8").replace("](docs/", "](")
        for other, file in ELSEWHERE.items():
            text = text.replace(f"]({file}", f"]({other}")
        yield name, text


def api_pages() -> Iterator[tuple[str, str]]:
    """A page of the names of `certtrain`, and one for each of its packages."""
    import certtrain

    described: set[str] = set()
    yield "api.md", "# certtrain\n\nWhat `import certtrain` gives.\n" + _entries(certtrain, described)
    for name in PACKAGES:
        package = import_module(f"certtrain.{name}")
        sentence = (package.__doc__ or "").strip().splitlines()[0]
        yield f"api-{name}.md", f"# certtrain.{name}\n\n{sentence}\n" + _entries(package, described)


def _entries(package: ModuleType, described: set[str]) -> str:
    """What mkdocstrings replaces by signatures and docstrings: each name where it is defined, once."""
    text = ""
    for name in package.__all__:
        found = getattr(package, name)
        home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
        if not home.startswith("certtrain.") or home.endswith("."):
            continue  # a type alias, a constant, a module
        if home in described:
            text += f"\n### [`{found.__name__}`][{home}]\n"
        else:
            text += f"\n::: {home}\n    options:\n      heading: {package.__name__}.{name}\n"
            described.add(home)
    return text


def _section(where: str | tuple[str, ...], files: Files) -> Any:
    if isinstance(where, tuple):
        return list(where)
    return _pages_of(where, files) if where.endswith("/") else where


def _pages_of(folder: str, files: Files) -> list[str]:
    pages = (file.src_uri for file in files.documentation_pages() if file.src_uri.startswith(folder))
    return sorted(pages, key=lambda uri: (not uri.endswith("/index.md"), uri))


def _index(folder: str, introduction: str, files: Files) -> str:
    lines = [introduction, ""]
    for uri in _pages_of(folder, files):
        file = files.get_file_from_path(uri)
        title, sentence = _head(file.content_string if file else "")
        lines.append(f"- [{title}]({uri.removeprefix(folder)})" + (f": {sentence}" if sentence else ""))
    return "\n".join(lines) + "\n"


def _head(text: str) -> tuple[str, str]:
    """The title of a page, and the first sentence below it without links; "" where it begins with no sentence."""
    title, _, rest = text.lstrip().partition("\n")
    written = "\n".join(line for line in rest.splitlines() if not line.startswith("#")).strip()
    paragraph = " ".join(_LEAD.sub("", written.split("\n\n")[0]).split())
    if paragraph.startswith(("|", "!", "-", "`" * 3)):
        return title.lstrip("# "), ""
    sentence = _SENTENCE.match(_LINK.sub(r"\1", paragraph).replace("**", ""))
    return title.lstrip("# "), sentence[0].rstrip(":.") + "." if sentence and paragraph else ""


def formula(source: str, *_: Any, **__: Any) -> str:
    """A formula as a picture in the colour of the text around it; its source is what a screen reader says.

    Args:
        source: What LaTeX calls mathematics, one formula in each line.

    Raises:
        SuperFencesException: If a formula cannot be drawn.
    """
    try:
        drawn = [_drawn(line) for line in source.strip().splitlines() if line.strip()]
    except ValueError as error:  # any other exception would make it a block of code without a word
        raise SuperFencesException(f"this formula cannot be drawn: {source}\n{error}") from error
    return '<div class="formula">' + "<br>".join(drawn) + "</div>"


def _drawn(line: str) -> str:
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "certtrain", "mathtext.fontset": "cm", "font.size": 12}):
        mathtext.math_to_image(f"${line.strip()}$", written, format="svg")
    picture = _NOT_OF_A_FORMULA.sub("", written.getvalue().decode())
    width, height = map(float, _SIZE.search(picture).groups())  # type: ignore[union-attr]
    size = f'width="{1.5 * width:g}" height="{1.5 * height:g}"'
    said = html.escape(line.strip(), quote=True)
    attributes = f'{size} fill="currentColor" role="img" aria-label="{said}"'
    return _SIZE.sub(lambda _: attributes, picture[picture.index("<svg") :])
