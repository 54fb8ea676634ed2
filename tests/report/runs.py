"""Finished runs that nobody ran: their configuration and their result."""

import json
from pathlib import Path
from typing import Any

import yaml

METHODS: dict[str, dict[str, Any]] = {
    "grad": {},
    "rgs": {"rgs.sigma": 0.01},
    "pgpe": {"pgpe.sigma": 0.05, "pgpe.population_size": 64},
}
RELAXATIONS = {"ibp": {}, "hbox": {}, "crown_ibp": {"lower_slope": "adaptive"}, "deeppoly": {"intersect": True}}
DATA = {"content": "0123456789abcdef", "judged": "fedcba9876543210"}


def run(
    folder: Path,
    method: str = "grad",
    relaxation: str = "ibp",
    seed: int = 0,
    certified: float | None = 0.5,
    record: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """A finished run; options are dotted keys with two underscores for the dot."""
    directory = folder / str(sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0)
    directory.mkdir(parents=True)
    node: dict[str, Any] = {
        "seed": seed,
        "eps": 0.05,
        "method": method,
        "data": {"name": "digits", "path": None, "source": {"name": "digits", "path": None, "hub": "x", "mean": [0.3]}},
        "relaxation": {"name": relaxation, **RELAXATIONS[relaxation]},
        "optimizer": {"lr": 0.01 if method == "pgpe" else 0.005},
        "trainer": {"devices": seed + 1},
    }
    for key, value in (METHODS[method] | {name.replace("__", "."): value for name, value in options.items()}).items():
        *path, last = key.split(".")
        inner = node
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = value
    (directory / "config.yaml").write_text(yaml.safe_dump(node, sort_keys=False))
    summary = {
        "natural_accuracy": None if certified is None else min(1.0, certified + 0.1),
        "certified_accuracy": certified,
        "certified_accuracy_by": {} if certified is None else {relaxation: certified / 2},
        "images": 100,
        "train_seconds": 2.0,
        "data": DATA,
        **(record or {}),
    }
    (directory / "summary.json").write_text(json.dumps(summary))
    return directory
