"""The reference of the configuration: made from files, schema and docstrings, and complete."""

from pathlib import Path

import pytest

from certtrain.cli.configuration.schema import RunConfig
from certtrain.cli.help.documented import Key, described_by, read_choice
from certtrain.cli.help.reference import SETTINGS, all_choices, configuration_page, documented, in_words, values_of


def test_every_key_says_what_it_is_for() -> None:
    silent = {
        found.key.name
        for choice in all_choices()
        if choice.group not in SETTINGS
        for found in documented(choice)
        if not found.meaning
    }
    assert silent == set(), "write a comment above the key in its file"


FILE = """# @package _global_
# A sentence about all of it.
# Of the first key.
first: 1
defaults:
  - other: thing
node:
  # Two lines
  # about one.
  deep: [1, 2]   # and beside

  bare: null
  # Both of these.
  flat: {a: 1.5, b: two}
  _recursive_: false
  long:
    - {a: 1}
    - b
"""


def test_comments_belong_to_the_keys_below_them(tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "choice.yaml").write_text(FILE, encoding="utf-8")
    choice = read_choice(tmp_path / "group" / "choice.yaml", tmp_path)
    assert (choice.group, choice.name, choice.sentence, choice.target) == (
        "group",
        "choice",
        "A sentence about all of it.",
        None,
    )
    assert [(key.name, key.default, key.comment) for key in choice.keys] == [
        ("first", "1", "Of the first key."),
        ("node.deep", "[1, 2]", "Two lines about one. and beside"),
        ("node.bare", "null", ""),
        ("node.flat.a", "1.5", "Both of these."),
        ("node.flat.b", "two", "Both of these."),
        ("node.long", "[{a: 1}, b]", ""),
    ]


def test_a_group_is_part_of_the_name_and_a_target_documents_its_options(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    file = tmp_path / "loss" / "mine.yaml"
    file.write_text("# Mine.\n_target_: certtrain.losses.Sabr\nsubselection_ratio: 0.4\n", encoding="utf-8")
    (key,) = read_choice(file, tmp_path).keys
    assert (key.name, key.target) == ("loss.subselection_ratio", "certtrain.losses.Sabr")
    assert described_by("certtrain.losses.Sabr")["subselection_ratio"].startswith("λ in (0, 1]")
    assert described_by("certtrain.losses.Sabr")["l1"], "an inherited option has its description"
    assert described_by("torch.optim.SGD")["momentum"].startswith("momentum factor")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("eps", "number ≥ 0, ≤ 1"),
        ("pgpe.population_size", "integer ≥ 2, a multiple of 2"),
        ("pgpe.fitness", "`raw`, `centered_ranks`, `normalized`"),
        ("certify.limit", "integer ≥ 1, or null"),
        ("certify.enabled", "`true`, `false`"),
        ("certify.verifiers", "list: text"),
        ("clip", "[number, number]"),
    ],
)
def test_what_a_key_may_be_comes_from_the_schema(key: str, values: str) -> None:
    assert values_of(Key(key, "", "", None)) == values


def test_unknown_types_are_left_to_the_description() -> None:
    assert in_words(RunConfig, ()) == ""


def test_the_page_marks_defaults_and_escapes_what_a_table_ends_at() -> None:
    page = configuration_page()
    assert "### relaxation=deeppoly\n\nDeepPoly / CROWN" in page
    assert page.count("**The default.**") >= 10
    assert "adaptive \\| zero \\| one" in page
