"""The documentation as a site: it builds without a warning, fetches nothing, and leaves out no key, command or name."""

import html
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from doc_blocks import REPOSITORY

pytestmark = pytest.mark.skipif(not (REPOSITORY / "mkdocs.yml").is_file(), reason="the documentation is not installed")
# What a browser would load by itself; links that a reader follows are none of it.
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^\s\"'>]+")
STYLED = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning ends the build."""
    mkdocs = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    mkdocs.build(load_config(str(REPOSITORY / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def words(site: Path, page: str) -> str:
    """What a reader sees, as one line."""
    text = re.sub(r"<(script|style).*?</\1>", " ", (site / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    fetched = {match for page in pages for match in LOADED.findall(page.read_text(encoding="utf-8"))}
    assert {tag for tag in fetched if 'rel="canonical"' not in tag} == set()
    assert [sheet for sheet in site.rglob("*.css") if STYLED.search(sheet.read_text(encoding="utf-8"))] == []


def test_the_reference_has_every_key_and_choice(site: Path) -> None:
    from certtrain.cli.configuration.sentences import GROUPS
    from certtrain.cli.help.page import choices
    from certtrain.cli.help.reference import SETTINGS, all_choices

    keys = words(site, "reference/configuration.html")
    for choice in all_choices():
        if choice.group not in SETTINGS:
            assert [key.name for key in choice.keys if f"{key.name} {key.default} " not in keys] == []
    settings = words(site, "reference/settings.html")
    from certtrain._paths import config_dir

    for group in GROUPS:
        page = settings if group in SETTINGS else keys
        missing = [name for name in choices(config_dir() / group) if name not in page]
        assert not missing, f"{group}: {missing}"


def test_the_reference_has_every_command_and_public_name(site: Path) -> None:
    import certtrain
    from certtrain.cli.configuration.parser import COMMANDS

    commands = words(site, "reference/commands.html")
    for name in COMMANDS:
        assert f"usage: python -m certtrain {name} " in commands
    names = re.findall(r'id="certtrain\.[\w.]*\b(\w+)"', (site / "reference" / "api.html").read_text(encoding="utf-8"))
    assert set(certtrain.__all__) - {"networks"} - set(names) == set()
    assert "Sound bounds of spec @ model(x)" in words(site, "reference/api.html")


def test_formulas_are_pictures_that_can_be_read_aloud(site: Path) -> None:
    page = (site / "concepts" / "smoothing.html").read_text(encoding="utf-8")
    formulas = re.findall(r"<svg[^>]* fill=\"currentColor\" role=\"img\" aria-label=\"([^\"]+)\"", page)
    assert len(formulas) >= 6
    assert any(r"L(\theta + \varepsilon_i) - L(\theta - \varepsilon_i)" in formula for formula in formulas)
    assert "<code>math" not in page


def test_every_page_is_reached_and_sections_list_theirs(site: Path) -> None:
    for folder in ("how-to", "concepts", "design", "reference"):
        listed = (site / folder / "index.html").read_text(encoding="utf-8")
        assert [p.name for p in (site / folder).glob("*.html") if f'href="{p.name}"' not in listed] == []


def test_links_of_pages_outside_of_the_site_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        links = LINK.findall((REPOSITORY / name).read_text(encoding="utf-8"))
        assert [link for link in links if not (REPOSITORY / link).exists()] == [], name


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/site.py, as MkDocs loads it."""
    pytest.importorskip("mkdocs")
    spec = spec_from_file_location("docs_site", REPOSITORY / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["docs_site"] = module
    spec.loader.exec_module(module)
    return module


def test_a_formula_that_cannot_be_drawn_ends_the_build(hooks: ModuleType) -> None:
    assert hooks.formula("a < b").count("&lt;") == 1
    with pytest.raises(Exception, match=r"cannot be drawn: .frac"):
        hooks.formula(r"\frac{1}")


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("# A title\n\nOne sentence. Another one.\n", ("A title", "One sentence.")),
        ("# T\n\n[A link](a.md) with `a.b=1` and\nmore:\n", ("T", "A link with `a.b=1` and more.")),
        ("# T\n\n## Why\n**Why.** So, at 0.5 of it. Not.\n", ("T", "So, at 0.5 of it.")),
        ("# T\n\n```bash\nls\n```\n", ("T", "")),
    ],
)
def test_a_section_says_of_a_page_what_it_begins_with(hooks: ModuleType, text: str, head: tuple[str, str]) -> None:
    assert hooks._head(text) == head
