"""images.csv and images.parquet: one row per image, for whoever goes on with the verdicts."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certtrain.certify import Verdict
from certtrain.files import replacing

COLUMNS = (
    *("index", "label", "predicted", "eps", "status", "verified_by", "falsified_by", "margin", "seconds"),
    *("counterexample", "message", "cascade", "image"),
)
NAMES = ("images.csv", "images.parquet")


def write_images(verdicts: Sequence[Verdict], directory: Path) -> list[Path]:
    """Writes the verdicts as CSV and as Parquet, replacing what is there.

    Beside the columns of the ledger there are, for every verifier V and every stage S that some image names,
    `margin_V` in logits and `seconds_S`; they are empty where an image has none.

    Args:
        verdicts: Of a ledger.
        directory: Exists.

    Returns:
        Both files.
    """
    import pyarrow
    from pyarrow import parquet

    rows = [image_row(verdict) for verdict in verdicts]
    names = [*COLUMNS, *dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)]
    table_file, columns_file = (directory / name for name in NAMES)
    with replacing(table_file) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with replacing(columns_file) as partial:
        parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in names}), partial)
    return [table_file, columns_file]


def image_row(verdict: Verdict) -> dict[str, Any]:
    """The columns of one image."""
    row = {name: getattr(verdict, name) for name in COLUMNS}
    row |= {f"margin_{name}": margin for name, margin in verdict.margins.items()}
    return row | {f"seconds_{name}": seconds for name, seconds in verdict.stages.items()}
