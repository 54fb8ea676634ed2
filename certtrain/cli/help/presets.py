"""Published settings: the files of conf/experiment that say what came of them elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from certtrain._paths import config_dir
from certtrain.errors import ConfigError

# Lines of a preset's file that are read: "# published: natural 98.74, certified 93.90", a "?" for what is not known.
NOTES = ("published", "verifier", "source", "unknown", "measured")
_NOTE = re.compile(rf"# ({'|'.join(NOTES)}): (.+)")
_FIGURES = re.compile(r"natural (\?|[\d.]+), certified (\?|[\d.]+)")
# "# measured: natural 95.3, certified 83.1, 50 of 200 epochs, the first 1,000 images": of a run by certtrain.
_MEASURED = re.compile(r"natural ([\d.]+), certified ([\d.]+), (.+)")


@dataclass(frozen=True)
class Preset:
    """A published setting: a file of conf/experiment.

    Attributes:
        name: What `experiment=` is given.
        sentence: What it is.
        natural: Published accuracy in percent; None where it is not known.
        certified: Published certified accuracy in percent; None where it is not known.
        verifier: What certified that.
        source: Who published it.
        unknown: What of the setting is not known, and what stands here instead; "" for nothing.
        measured: What certtrain came to with it; None where nobody has run it.
    """

    name: str
    sentence: str
    natural: float | None
    certified: float | None
    verifier: str
    source: str
    unknown: str
    measured: OwnRun | None


@dataclass(frozen=True)
class OwnRun:
    """What a run of certtrain came to, by the verifier of the preset.

    Attributes:
        natural: Accuracy in percent.
        certified: Certified accuracy in percent.
        told: How the run differed from the preset, and what it was judged on.
    """

    natural: float
    certified: float
    told: str

    def __str__(self) -> str:
        return f"{self.natural:g} / {self.certified:g} ({self.told})"


def presets() -> Mapping[str, Preset]:
    """All presets by name: the experiments that say what was published.

    Raises:
        ConfigError: If one says it in a way that cannot be read.
    """
    found = (_read(file) for file in sorted((config_dir() / "experiment").glob("*.yaml")))
    return {preset.name: preset for preset in found if preset is not None}


def _read(file: Path) -> Preset | None:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    notes = {match[1]: match[2] for match in map(_NOTE.fullmatch, lines) if match}
    if "published" not in notes:
        return None
    figures = _FIGURES.fullmatch(notes["published"])
    if figures is None or not {"verifier", "source"} <= notes.keys():
        raise ConfigError(f"{file}: a preset says '# published: natural 98.7, certified 93.9', verifier and source")
    natural, certified = (None if figure == "?" else float(figure) for figure in figures.groups())
    sentence = next(line[2:] for line in lines if not line.startswith("# @package"))
    measured = _own_run(file, notes["measured"]) if "measured" in notes else None
    return Preset(
        file.stem, sentence, natural, certified, notes["verifier"], notes["source"], notes.get("unknown", ""), measured
    )


def _own_run(file: Path, text: str) -> OwnRun:
    figures = _MEASURED.fullmatch(text)
    if figures is None:
        raise ConfigError(f"{file}: '# measured: natural 95.3, certified 83.1, on what and after how much training'")
    return OwnRun(float(figures[1]), float(figures[2]), figures[3])
