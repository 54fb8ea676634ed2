"""Records of a run as pandas tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.certify import read_ledger
from certtrain.report.images import COLUMNS, image_row
from certtrain.report.metrics import read_metrics
from certtrain.report.summary import ACCURACIES, read_summary

if TYPE_CHECKING:
    import pandas


def metrics_frame(path: Path) -> pandas.DataFrame:
    """metrics.jsonl: a row for each step at which something was logged, a column for each quantity.

    Args:
        path: The file; without it, the table is empty.

    Returns:
        Index `step` (optimizer steps, which are generations); NaN where a quantity was not logged or not finite.

    Raises:
        DataError: If a line is damaged.
    """
    import pandas

    columns = {
        key: pandas.Series(list(series.values), index=list(series.steps)) for key, series in read_metrics(path).items()
    }
    frame = pandas.DataFrame(columns).sort_index()
    frame.index = frame.index.astype("int64").rename("step")
    return frame


def ledger_frame(path: Path) -> pandas.DataFrame:
    """ledger.jsonl, with its shards: a row for each image.

    Args:
        path: The file; without it, the table is empty.

    Returns:
        Index `index`, the number of the image in the test split. Beside the columns of the ledger, for every verifier
        or stage that some image names, `margin_V` (lower bound of the smallest margin in logits), `seconds_S` and
        `failure_S` (kind and message). Missing where an image has none.

    Raises:
        DataError: If a line is damaged.
    """
    import pandas

    verdicts = read_ledger(path)
    rows = [
        image_row(verdict) | {f"failure_{stage}": f"{f.kind}: {f.message}" for stage, f in verdict.failures.items()}
        for verdict in verdicts
    ]
    frame = pandas.DataFrame(rows, columns=list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])))
    return frame.set_index("index").sort_index()


def certifications_frame(folder: Path) -> pandas.DataFrame:
    """What was certified of a run afterwards: a row for each certification that has come to its end.

    Args:
        folder: `certifications` in the run directory; without it, the table is empty.

    Returns:
        Index `name`, of its folder; by ascending eps. Accuracies are fractions of 1, those of single verifiers under
        `certified_accuracy_by.V`; `directory` is what `certtrain.Run.load` takes. One whose summary cannot be read has
        no numbers.
    """
    import pandas

    from certtrain.errors import DataError

    rows = []
    for summary in sorted(folder.glob("*/summary.json")):
        row: dict[str, Any] = {"name": summary.parent.name}
        try:
            record = read_summary(summary)
        except DataError:
            record = {}
        row |= {key: record.get(key) for key in ("eps", "images", *ACCURACIES)}
        row |= by_verifier(record)
        rows.append({**row, "directory": str(summary.parent)})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    frame = pandas.DataFrame(rows, columns=columns or ["name", "eps", "images", *ACCURACIES, "directory"])
    return frame.set_index("name").sort_values("eps", kind="stable")


def by_verifier(record: dict[str, Any]) -> dict[str, Any]:
    """Accuracies of single verifiers, under the names that summary.json has for them."""
    found = record.get("certified_accuracy_by")
    return {f"certified_accuracy_by.{name}": value for name, value in found.items()} if isinstance(found, dict) else {}
