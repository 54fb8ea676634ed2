"""How settings are told apart in every chart: a letter, a marker, a dash, and a colour for who sees colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from certtrain.report.collect import Group
from certtrain.report.collect_keys import KEYS, identity
from certtrain.report.collect_read import CONTENT, IMAGES, JUDGED
from certtrain.report.collected_text import value_text
from certtrain.report.page.svg import PROPERTIES
from certtrain.report.style import BLUE, GOLD, GREEN, GREY, ORANGE, PURPLE, RED, SKY

COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GOLD, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0), (3.0, 1.0))
# The same markers around 0, for the legend.
SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    "s": "M-4-4h8v8h-8z",
    "^": "M0-4.5L4.5 4h-9z",
    "D": "M0-5L5 0L0 5L-5 0z",
    "v": "M0 4.5L4.5-4h-9z",
    "P": "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "X": "M-4.5-2.5L-2.5-4.5L0-2L2.5-4.5L4.5-2.5L2 0L4.5 2.5L2.5 4.5L0 2L-2.5 4.5L-4.5 2.5L-2 0z",
}
# Not part of a name: digests, which say nothing to people.
NAMELESS = (CONTENT, JUDGED, IMAGES)


@dataclass(frozen=True)
class Look:
    """One setting's appearance.

    Attributes:
        letter: Which stands beside its row, its line and its point: A, B, ..., Z, A1, ...
        name: What it is.
        color: Hexadecimal.
        marker: Matplotlib's.
        dash: Lengths of line and gap in points; empty for a full line.
    """

    letter: str
    name: str
    color: str
    marker: str
    dash: tuple[float, ...]

    @property
    def hue(self) -> str:
        """Name of the colour in the style sheet."""
        return PROPERTIES[self.color]

    @property
    def shape(self) -> str:
        """The marker as a path around 0."""
        return SHAPES[self.marker]

    @property
    def line(self) -> dict[str, object]:
        """How matplotlib draws its line."""
        return {"color": self.color, "linestyle": (0, self.dash) if self.dash else "-"}


def look(index: int, name: str) -> Look:
    """The appearance of the setting at a place in the list of all."""
    letter = chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")
    color, dash = COLORS[index % len(COLORS)], DASHES[(index + index // len(COLORS)) % len(DASHES)]
    return Look(letter, name, color, MARKERS[index % len(MARKERS)], dash)


def telling(groups: Sequence[Group], columns: Sequence[str]) -> list[str]:
    """The columns without those that follow from the ones before them, as optimizer.lr follows from the method."""
    kept: list[str] = []
    for key in (*(key for key in columns if key in KEYS), *(key for key in columns if key not in KEYS)):
        if key in NAMELESS:
            continue
        known = [identity({k: group.setting[k] for k in kept if k in group.setting}) for group in groups]
        both = [identity({k: group.setting[k] for k in (*kept, key) if k in group.setting}) for group in groups]
        if key in KEYS or len(set(both)) > len(set(known)):
            kept.append(key)
    return kept


def setting_name(group: Group, keys: Sequence[str]) -> str:
    """Relaxation and method, then other keys: "deeppoly, pgpe, sigma 0.02"."""
    parts = [value_text(group.setting[key]) for key in KEYS if key in group.setting]
    for key in keys:
        if key not in KEYS and key in group.setting:
            parts.append(f"{short_key(key)} {value_text(group.setting[key])}")
    return ", ".join(parts)


def short_key(key: str) -> str:
    """The last part of a key that says something: pgpe.sigma is sigma, loss._target_ is loss, data.name is data."""
    parts = [part for part in key.split(".") if part not in ("name", "_target_")]
    return parts[-1] if parts else key
