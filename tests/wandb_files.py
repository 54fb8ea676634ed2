"""What W&B has written of an offline run, read back: its transaction log is LevelDB's log format."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as messages

# Of the log: bytes in front of the first block, of a block, and of a piece's header; kinds of pieces.
IDENT, BLOCK, HEADER = 7, 32768, 7
FULL, FIRST, LAST = 1, 2, 4
# Tenths of a second.
PATIENCE = 600


def _records(path: Path) -> Iterator[Any]:
    data, at, whole = path.read_bytes(), IDENT, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEADER])
        piece = data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        whole = piece if kind in (FULL, FIRST) else whole + piece
        if kind in (FULL, LAST):
            record = messages.Record()
            record.ParseFromString(whole)
            yield record


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class OfflineRun:
    """One offline run.

    Attributes:
        folder: Of W&B's files.
        run: Its record: id, group, tags, ...
        config: Key -> value.
        rows: What was logged, in order, without W&B's own keys but `_step`.
        summary: Key -> value, at the end.
        artifacts: Name -> the files in it; of tables as W&B keeps them, too.
        metrics: How metrics were defined.
        kinds: Kinds of all records.
        exit_code: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (log,) = folder.glob("run-*.wandb")
        self.config: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.artifacts: dict[str, list[str]] = {}
        self.metrics: list[Any] = []
        self.kinds: set[str] = set()
        for record in _records(log):
            kind = record.WhichOneof("record_type")
            self.kinds.add(kind)
            match kind:
                case "run":
                    self.run = record.run
                    self.config |= _items(record.run.config.update)
                case "config":
                    self.config |= _items(record.config.update)
                case "history":
                    found = _items(record.history.item)
                    self.rows.append({k: v for k, v in found.items() if k not in ("_timestamp", "_runtime")})
                case "summary":
                    self.summary |= _items(record.summary.update)
                case "metric":
                    self.metrics.append(record.metric)
                case "artifact":
                    assert record.artifact.name not in self.artifacts
                    self.artifacts[record.artifact.name] = [e.path for e in record.artifact.manifest.contents]
                case "exit":
                    self.exit_code = record.exit.exit_code

    def table(self, key: str) -> dict[str, list[Any]]:
        """The columns of a table."""
        (row,) = [row for row in self.rows if f"{key}/path" in row]
        found = json.loads((self.folder / "files" / row[f"{key}/path"]).read_text())
        return dict(zip(found["columns"], map(list, zip(*found["data"], strict=True)), strict=True))


def offline_run(directory: Path) -> OfflineRun:
    """The only offline run of a directory, once W&B's own process has written its end."""
    (folder,) = [path for path in (directory / "wandb").glob("offline-run-*") if path.is_dir()]
    for _ in range(PATIENCE):
        if "exit" in (found := OfflineRun(folder)).kinds:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{folder} has no end")
