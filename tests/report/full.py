"""Finished runs that nobody ran, with everything that a page shows: curves, ledgers, counterexamples, other radii."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report.fakes import verdict
from report.runs import run

from certtrain.certify import Verdict, summarize
from certtrain.certify.case import image_digest

IMAGES = np.linspace(0, 1, 20 * 16, dtype=np.float32).reshape(20, 1, 4, 4)
VERIFIERS = ("ibp", "deeppoly")


def verdicts(certified: int) -> list[Verdict]:
    """Of 20 images 2 are misclassified, `certified` proved, half of them by ibp, 3 falsified; the others stay open."""
    found = [verdict(i, "misclassified") for i in range(2)]
    found += [
        replace(verdict(i, "falsified", -3.0, -0.1 * i), counterexample=f"ledger.counterexamples/{i}.npy")
        for i in (2, 3, 4)
    ]
    for i in range(5, 5 + certified):
        found.append(verdict(i, "verified", 0.5 if i % 2 else -1.0, 0.01 * i))
    found += [verdict(i, "unknown", -2.0, -0.01 * i) for i in range(5 + certified, 20)]
    return [replace(one, image=image_digest(torch.from_numpy(IMAGES[one.index]))) for one in found]


def full_run(folder: Path, method: str, relaxation: str, seed: int, certified: int, **options: Any) -> Path:
    """A run of 40 steps, certified at two radii."""
    judged = verdicts(certified)
    record = {**summarize(judged, VERIFIERS), "train_seconds": 2.0 + seed, "certify_seconds": 1.0, "parameters": 99}
    record |= {"relaxation": relaxation, "method": method, "eps": 0.05, "seed": seed, "commit": "abc1234"}
    record |= {"versions": {"torch": "2.0", "python": "3.11"}, "command": f"python -m certtrain seed={seed}"}
    directory = run(folder, method, relaxation, seed, 0.5, record, certify__verifiers=list(VERIFIERS), **options)
    write_ledger(directory, judged)
    rows = [{"step": s, "train/loss": 2.0 / (s + 1 + seed), "lr": 0.0005, "epoch": s // 10} for s in range(40)]
    rows += [{"step": s, "val/certified_accuracy": 0.01 * (s + seed), "val/natural_accuracy": 0.9} for s in (9, 19, 39)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = directory / "certifications" / "eps-0.1"
    other.mkdir(parents=True)
    result = summarize(verdicts(certified - 2), VERIFIERS)
    known = {"relaxation": relaxation, "method": method, "eps": 0.1, "seed": seed, "trained_eps": 0.05}
    (other / "summary.json").write_text(json.dumps({**result, **known}))
    return directory


def write_ledger(directory: Path, judged: list[Verdict]) -> None:
    """A ledger, and the points that its verdicts name."""
    (directory / "ledger.jsonl").write_text("".join(json.dumps(one.row()) + "\n" for one in judged))
    for one in judged:
        if one.counterexample is not None:
            path = directory / one.counterexample
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.clip(IMAGES[one.index].astype(np.float64) + 0.05, 0, 1))


def full_study(folder: Path) -> Path:
    """Two relaxations by grad with two seeds each, four settings of pgpe, one run that failed and one interrupted."""
    for relaxation, certified in (("ibp", 6), ("deeppoly", 10)):
        for seed in (0, 1):
            full_run(folder / "sweep", "grad", relaxation, seed, certified + seed)
        for sigma in (0.01, 0.1):
            full_run(folder / "sweep", "pgpe", relaxation, 0, certified + 1, pgpe__sigma=sigma)
    failed = full_run(folder / "sweep", "grad", "hbox", 0, 5)
    interrupted = full_run(folder / "sweep", "grad", "hbox", 1, 5)
    for directory in (failed, interrupted):
        for name in ("summary.json", "ledger.jsonl"):
            (directory / name).unlink()
    (failed / "traceback.txt").write_text("Traceback (most recent call last):\n  ...\nValueError: <b>boom</b>\n")
    jobs = [{"job": int(failed.name), "overrides": ["relaxation=hbox"], "status": "failed", "directory": failed.name}]
    jobs.append({"job": 99, "overrides": ["seed=99"], "status": "not run", "exit_code": None, "directory": "99"})
    (folder / "sweep" / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    broken = full_run(folder / "broken", "grad", "ibp", 7, 5)
    (broken / "summary.json").write_text("{")
    return folder
