"""The result as rows of a table: the same ones in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from certtrain.bounds.registry import NATIVE
from certtrain.certify.cascade import AskFirst
from certtrain.certify.verdict import FAILURES
from certtrain.report.identity import UNBOUNDED, as_record, named

UNKNOWN = "–"
# Statuses of images of which neither a proof nor a counterexample is known.
UNDECIDED_NAMES = ("unknown", *FAILURES)
# The cascade in which a verifier's numbers are about leftovers.
FIRST = AskFirst.name


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        what: What was counted.
        percent: Of the images that it is known of; "–" where nothing was counted.
        images: How many of how many.
        judged: How many images were judged; "–" where that was not noted.
        failed: How many came to no result.
        skipped: How many were not judged since they are misclassified, or have no prediction.
        union: Whether it is the certified accuracy that is reported.
    """

    what: str
    percent: str
    images: str
    judged: str = UNKNOWN
    failed: str = UNKNOWN
    skipped: str = UNKNOWN
    union: bool = False


@dataclass(frozen=True)
class StageRow:
    """One line of the waterfall: a stage, and what became of the images that it was asked about.

    Attributes:
        stage: Its name.
        asked: Images.
        wrong: Misclassified, as the prediction has settled.
        verified: Settled by a proof of this stage.
        falsified: Settled by a counterexample that this stage was the first to find.
        failed: An error, exhausted memory or time.
        left: None of these.
        seconds: Which the stage took altogether; "–" where that was not noted.
    """

    stage: str
    asked: str
    wrong: str
    verified: str
    falsified: str
    failed: str
    left: str
    seconds: str


def result_rows(record: Mapping[str, Any]) -> list[Row]:
    """Natural, attacked, certified by each verifier, certified by their union.

    Args:
        record: What stands in summary.json; one that an older certtrain wrote says only what came out.
    """
    total = int(record.get("images") or 0)
    by, tallies = record.get("certified_accuracy_by") or {}, record.get("verifiers") or {}
    rows = [
        _row("natural: correct", record.get("natural_accuracy"), total, record.get("prediction")),
        _row("attacked: still correct", record.get("attacked_accuracy"), total, record.get("attack")),
        *(_row(f"certified by {name}", fraction, total, tallies.get(name)) for name, fraction in by.items()),
    ]
    return [*rows, _union_row(record, total)]


def stage_rows(record: Mapping[str, Any]) -> list[StageRow]:
    """What each stage was asked and settled, in order; none for a record of before there were stages.

    Args:
        record: What stands in summary.json.
    """
    return [_stage_row(stage) for stage in record.get("stages") or ()]


def _stage_row(stage: Mapping[str, Any]) -> StageRow:
    asked, settled, failed = stage["asked"], stage["settled"], stage["failed"]
    wrong = settled - stage["verified"] - stage["falsified"]
    return StageRow(
        stage["name"],
        f"{asked:,}",
        f"{wrong:,}",
        f"{stage['verified']:,}",
        f"{stage['falsified']:,}",
        f"{failed:,}",
        f"{asked - settled - failed:,}",
        UNKNOWN if stage["seconds"] is None else f"{stage['seconds']:.2f}",
    )


def stages_heading(record: Mapping[str, Any]) -> str:
    """How the images went through the stages, in words."""
    asked = "what those before it left open" if record.get("cascade") == FIRST else "all correctly classified images"
    return f"Stages: each verifier was asked {asked}"


def _row(what: str, fraction: float | None, total: int, tally: Mapping[str, int] | None) -> Row:
    if tally is None:
        passed = None if fraction is None else round(fraction * total)
        return Row(what, *_rate(fraction, passed, total))
    rate = _rate(fraction, tally["passed"], tally["decided"])
    return Row(what, *rate, f"{tally['judged']:,}", f"{tally['failed']:,}", f"{tally['skipped']:,}")


def _union_row(record: Mapping[str, Any], total: int) -> Row:
    """The certified accuracy: of all images, so that it is a lower bound where some are undecided."""
    fraction, statuses = record.get("certified_accuracy"), record.get("statuses") or {}
    if not statuses:
        return Row("certified by any (union)", UNKNOWN, UNKNOWN, union=True)
    undecided = sum(int(statuses.get(kind, 0)) for kind in FAILURES)
    wrong = int(statuses.get("misclassified", 0))
    what = "certified by any (union)" + (", at least" if undecided and fraction is not None else "")
    rate = _rate(fraction, int(statuses.get("verified", 0)), total)
    return Row(what, *rate, f"{total - undecided - wrong:,}", f"{undecided:,}", f"{wrong:,}", union=True)


def _rate(fraction: float | None, passed: int | None, decided: int) -> tuple[str, str]:
    """In percent, and as so many of so many images."""
    return (UNKNOWN, UNKNOWN) if fraction is None else (f"{100 * fraction:.2f}", f"{passed:,} of {decided:,}")


def failure_lines(record: Mapping[str, Any]) -> list[str]:
    """What failed, also where an image was decided otherwise, and what it does to a rate: a line per stage and kind."""
    rates = {"prediction": record.get("natural_accuracy"), "attack": record.get("attacked_accuracy")}
    rates |= record.get("certified_accuracy_by") or {}
    first = record.get("cascade") == FIRST
    return [
        _failure_line(row, rates.get(row["stage"]), first and row["stage"] not in rates)
        for row in record.get("failures") or ()
    ]


def _failure_line(row: Mapping[str, Any], rate: float | None, in_turn: bool) -> str:
    plural, them = ("", "it") if row["images"] == 1 else ("s", "them")
    consequence = "it judged none, so it has no rate" if rate is None else f"its rate leaves {them} out"
    if in_turn:
        consequence = f"it left {them} to the stages after it"
    return f"{row['stage']} failed on {row['images']:,} image{plural} ({row['kind']}: {row['message']}): {consequence}"


def title(record: Mapping[str, Any]) -> str:
    """Which run it is, in one line: no number is shown without it.

    Data, network, loss, relaxation, method and radius, of each the options that are not its defaults, and the seed:
    runs that were told anything else of these have other titles. Older records do not know all of it.
    """
    eps, trained, seed = record.get("eps"), record.get("trained_eps"), record.get("seed")
    radius = f"eps {'unknown' if eps is None else f'{eps:g}'}"
    if trained is not None:
        radius = f"eps {trained:g}, certified at {radius}"
    return f"{subject(record)}, {radius}" + ("" if seed is None else f", seed {seed}")


def recorded_title(record: Mapping[str, Any]) -> str:
    """The title that a record has; that of an older one, which has none, is made of it."""
    return str(record.get("title") or title(record))


def title_of(config: Mapping[str, Any]) -> str:
    """The title of a run that has no record yet: see `title`.

    Args:
        config: Its resolved configuration, of any version.
    """
    return title(as_record(config))


def subject(record: Mapping[str, Any]) -> str:
    """What was trained on what and how, without radius and seed: see `title`."""
    data = record.get("data")
    known = [data.get("name") if isinstance(data, Mapping) else None, record.get("model") and named(record, "model")]
    place = ", ".join(str(name) for name in known if name)
    how = variant(record)
    if (loss := record.get("loss")) is not None:
        how = named(record, "loss") if loss in UNBOUNDED else f"{named(record, 'loss')} on {how}"
    return (f"{place}: " if place else "") + f"trained with {how}, {named(record, 'method')}"


def variant(record: Mapping[str, Any]) -> str:
    """The relaxation that trained; behind it, in brackets, what sets it apart from the plain one of that name.

    That is a backend other than native, and options that differ from their defaults. Options of relaxations
    whose defaults are not known are left out; they stand in summary.json.
    """
    name, backend = str(record.get("relaxation") or "unknown relaxation"), record.get("backend")
    options = record.get("relaxation_options") or {}
    apart = [] if backend in (None, "native") else [str(backend)]
    for known in fields(NATIVE[name]) if name in NATIVE else ():  # type: ignore[arg-type]
        if known.name in options and options[known.name] != known.default:
            value = options[known.name]
            apart.append(f"{known.name}={str(value).lower() if isinstance(value, bool) else value}")
    return f"{name} ({', '.join(apart)})" if apart else name


def verifiers(record: Mapping[str, Any]) -> str:
    """Who certified, in words."""
    if record.get("cascade") == FIRST:
        stages = [str(stage["name"]) for stage in record.get("stages") or ()][2:]
        return f"settled by {', '.join(stages)}, each asked only what those before it left open"
    names = list(record.get("certified_accuracy_by") or {})
    return f"certified by {', '.join(names)}" if names else "not certified"
