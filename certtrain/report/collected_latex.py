"""The collected runs as a LaTeX table: booktabs, text escaped, certified accuracies under their verifiers' names."""

from __future__ import annotations

from collections.abc import Sequence

from certtrain.report.collect import Collection, Group, Statistic
from certtrain.report.collected_text import headline, notes, setting_cells, shared_lines, union_of, unions

# What LaTeX would read as something else; "-" alone is a hyphen, where a dash is meant.
ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"},
    **{"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", '"': "\\textquotedbl{}"},
    **{"±": "$\\pm$", "σ": "$\\sigma$", "ε": "$\\varepsilon$"},
}


def latex(collection: Collection) -> str:
    """A tabular of all settings, to be put into a table; needs booktabs.

    What the rows share and what they do not show stands above and below, as comments.
    """
    columns, groups = collection.keys.columns, collection.groups
    verifiers = list(dict.fromkeys(name for group in groups for name in group.by))
    shared = len(unions(collection)) < 2
    # Unions over different verifiers are different quantities: each row says over which.
    union = ["any"] if shared else ["any", "any of"]
    headings = [*(key.removesuffix(".name") for key in columns), "seeds", "natural", *verifiers, *union, "train (s)"]
    first = len(columns) + 3
    last = first + len(verifiers) + len(union) - 1
    kinds = "l" * len(columns) + "r" * (2 + len(verifiers) + 1) + ("" if shared else "l") + "r"
    lines = [
        f"% {headline(collection)}; in percent of test images",
        *(f"% {line.strip()}" for line in shared_lines(collection)),
        f"\\begin{{tabular}}{{{kinds}}}",
        "\\toprule",
        f"{'&' * (first - 1)} \\multicolumn{{{last - first + 1}}}{{c}}{{certified by}} \\\\",
        f"\\cmidrule(lr){{{first}-{last}}}",
        _row(headings),
        "\\midrule",
        *(_row(_cells(group, columns, verifiers, shared)) for group in groups),
        "\\bottomrule",
        "\\end{tabular}",
        *(f"% {line}" for note in notes(collection) for line in note.splitlines()),
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(ESCAPES.get(character, character) for character in " ".join(text.split()))


def _cells(group: Group, columns: Sequence[str], verifiers: Sequence[str], shared: bool) -> list[str]:
    by = [_number(group.by[name].certified if name in group.by else None) for name in verifiers]
    seconds = "-" if group.train_seconds is None else f"{group.train_seconds:.1f}"
    union = [_number(group.certified), *([] if shared else [", ".join(union_of(group)) or "-"])]
    return [*setting_cells(group.setting, columns), str(len(group.seeds)), _number(group.natural), *by, *union, seconds]


def _number(statistic: Statistic | None) -> str:
    return "-" if statistic is None else str(statistic)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(_printed, cells)) + " \\\\"


def _printed(cell: str) -> str:
    """A missing number is a dash, also before the images that it would have been over."""
    missing = cell == "-" or cell.startswith("- (")
    return f"-{escaped(cell)}" if missing else escaped(cell)
