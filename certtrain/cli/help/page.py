"""The help page, made from the configuration files themselves: it cannot fall behind them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from certtrain._paths import config_dir
from certtrain.cli.configuration.sentences import GROUPS, KEYS

# Choices of a group that get a sentence each; of more, --help tells the names, and `show` the sentences.
TOLD = 20
NARROWEST = 60

INTRO = """certtrain trains networks whose robustness can be proved, and proves it.

usage: python -m certtrain [group=choice ...] [key=value ...]
       python -m certtrain -m key=a,b,c ...             every combination, one run each
       python -m certtrain estimate -m key=a,b,c ...    what they would take, from a few timed steps of each kind
       python -m certtrain collect DIRECTORY ...        mean and deviation over seeds of all runs below directories
       python -m certtrain sync DIRECTORY ...           W&B runs made of the record, also of crashed or offline runs
       python -m certtrain dashboard [PROJECT]          the W&B project's workspace and report
       python -m certtrain report DIRECTORY ...         one page of a run, a sweep or any set of runs
       python -m certtrain export RUN                   network and properties of a run as ONNX and VNN-LIB files
       python -m certtrain certify RUN [key=value ...]  other questions about what a run has trained: eps=[0.05,0.1]
       python -m certtrain landscape RUN                certified loss around a run's weights, as it is and smoothed
       python -m certtrain analyze RUN                  tightness, jumps, stable neurons, bias and noise of gradients
       python -m certtrain presets                      published settings, their figures, and their cost here
       python -m certtrain show TARGET                  one part with its comments: loss=sabr, pgpe, experiment=NAME
       python -m certtrain study FILE                   several sweeps, collected, such as studies/digits.yaml

Without arguments it trains a small network on 8x8 digits by Gaussian loss smoothing (pgpe) with DeepPoly bounds at
eps 0.05, certifies the test images with every verifier, and leaves everything under outputs/<date>/<time>/.
"""

EXAMPLES = """Examples
  python -m certtrain method=grad relaxation=ibp
      plain gradients through interval bounds: under a minute
  python -m certtrain data=mnist data.path=PATH model=cnn3 method=grad relaxation=crown_ibp eps=0.1
      a convolutional network on MNIST; PATH is a folder with Parquet files, or leave it out to use the hub
  python -m certtrain -m relaxation=ibp,hbox,crown_ibp,deeppoly pgpe.sigma=1e-3,1e-2 pgpe.population_size=64,128
      a sweep: 16 runs under outputs/multirun/
  python -m certtrain -m hydra/sweeper=optuna "optimizer.lr=tag(log,interval(1e-4,1e-2))" relaxation=ibp,deeppoly
      a search: 20 trials, each chosen by what earlier ones reached on validation images

See also
  --cfg job        the configuration that a command composes, without running it
  --config-dir=X   choices of your own, such as X/experiment/mine.yaml
  --version        of certtrain
  -sc install=bash what makes a shell complete words: eval "$(certtrain -sc install=bash)"
  --hydra-help     what Hydra itself understands
"""


def choices(group: Path) -> dict[str, str]:
    """Choices of one group: name -> the sentence that its file begins with."""
    found = {}
    for file in sorted(group.glob("*.yaml")):
        comments = [line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        found[file.stem] = next((line for line in comments if not line.startswith("@package")), "")
    return found


def default_choices(config: Path) -> dict[str, str]:
    """Which choice of each group is the default; a group without a slash is one of the file's own folder.

    Groups of a method stand in the method's file, with a slash, those of a loss in the loss's.
    """
    folder = config.parent.relative_to(config_dir()).as_posix()
    inside = "" if folder == "." else f"{folder}/"
    lines = [line.strip() for line in config.read_text(encoding="utf-8").splitlines()]
    pairs = (line[2:].split(": ", 1) for line in lines if line.startswith("- ") and ": " in line)
    absolute = ((key.removeprefix("/") if key.startswith("/") else inside + key, choice) for key, choice in pairs)
    found = {key: choice for key, choice in absolute if "@" not in key}
    return {"hydra/launcher": "basic", **found}


def help_page(width: int = 120) -> str:
    """Groups, what they choose, frequent keys, and three examples.

    Args:
        width: Of the terminal; what does not fit goes on below, under the words that it belongs to.
    """
    root = config_dir()
    defaults: dict[str, str] = {}
    files = [file for folder in ("method", "loss", "hydra/sweeper") for file in sorted((root / folder).glob("*.yaml"))]
    for file in (*files, root / "config.yaml"):
        defaults |= default_choices(file)
    lines = [INTRO, "Groups (group=choice; * is the default)"]
    for group, purpose in GROUPS.items():
        lines.append(f"  {group}: {purpose}")
        found = choices(root / group)
        if len(found) > TOLD:
            lines.append(f"      {', '.join(found)}")
            continue
        for name, sentence in found.items():
            mark = "*" if defaults.get(group) == name else " "
            lines.append(f"    {mark} {name:<14} {sentence}")
    lines += ["", "Frequent keys (key=value; every key: --cfg job)"]
    lines += [f"  {key:<22} {meaning}" for key, meaning in KEYS.items()]
    text = "\n".join([*lines, "", EXAMPLES])
    return "\n".join(_folded(line, max(width, NARROWEST)) for line in text.splitlines())


def _folded(line: str, width: int) -> str:
    """A line in as many as it needs, the later ones under the last column of the first."""
    if len(line) <= width or line.startswith("  python -m"):  # a command is copied: the terminal may break it
        return line
    columns = re.match(r"(?: {2}(?:[* ] )?.*?\S {2,}|(?:usage:)? +python -m certtrain.*? {2,}| *)(?=\S)", line)
    indent = min(columns.end() if columns else 0, width // 2)
    return "\n".join(
        textwrap.wrap(
            line,
            width,
            subsequent_indent=indent * " ",
            drop_whitespace=True,
            break_on_hyphens=False,
            break_long_words=False,
            replace_whitespace=False,
        )
    )
