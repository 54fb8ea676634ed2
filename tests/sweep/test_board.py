"""What people see while jobs run: how far each is, the best so far, and how long yet."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from certtrain.sweep import board, state
from certtrain.sweep.board import Board
from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.progress import Progress


def job(folder: Path, number: int, epochs: int | None = 4, steps: int | None = -1) -> Job:
    own = folder / str(number)
    own.mkdir(exist_ok=True)
    overrides = ("method=grad", f"relaxation=ibp_of_a_long_name_{number}", f"optimizer.lr=0.00{number}")
    return Job(number, overrides, own, (), folder, epochs=epochs, steps=steps)


def log(one: Job, *rows: dict[str, float | None]) -> None:
    with (one.directory / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_progress_is_read_from_what_is_logged(tmp_path: Path) -> None:
    one = job(tmp_path, 0)
    progress = Progress(one)
    progress.look()
    assert (progress.fraction, progress.validated) == (0.0, None)
    log(one, {"step": 5, "epoch": 0, "train/loss": 1.0}, {"step": 10, "epoch": 0, "val/certified_accuracy": 0.25})
    progress.look()
    assert (progress.fraction, progress.validated) == (0.25, 0.25)
    log(one, {"step": 15, "epoch": 1, "train/loss": 1.0})
    progress.look()
    assert progress.fraction == pytest.approx(0.375)
    log(one, {"step": 20, "epoch": 1, "val/certified_accuracy": None})
    with (one.directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "ep')  # not written whole yet
    progress.look()
    assert (progress.fraction, progress.validated) == (0.5, 0.25)
    assert list(progress.reports) == [1, 2]
    limited = Progress(job(tmp_path, 1, epochs=100, steps=20))
    log(limited.job, {"step": 9, "epoch": 0, "train/loss": 1.0})
    limited.look()
    assert limited.fraction == 0.5


def test_the_live_table_fits_80_columns(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80, height=6, force_terminal=True, color_system=None)
    shown = Board(console)
    jobs = [job(tmp_path, number) for number in range(9)]
    shown.knows(jobs, {one.number: Outcome("waiting") for one in jobs})
    shown.open(True, at_a_time=5, total=12)
    try:
        for one in jobs[:7]:
            shown.started(one)
        log(jobs[2], {"step": 10, "epoch": 0, "val/certified_accuracy": 0.5})
        shown.said(jobs[4], "reading the data (10 s)")
        shown.ended(jobs[0], Outcome("done", 0, 100.0))
        shown.ended(jobs[1], Outcome("failed", 1, 3.0))
        plain = Console(file=io.StringIO(), width=80, record=True, color_system=None)
        plain.print(shown._shown())
    finally:
        shown.close()
    lines = plain.export_text().splitlines()
    assert len(lines) == 4
    assert all(len(line) <= 80 for line in lines)
    assert "job 2" in lines[0]
    assert "50.0 %" in lines[0]
    assert "reading the data" in lines[2]
    assert lines[-1].startswith("1 of 12 done, 1 failed, best validated 50.00 % (job 2), about")
    assert "(and 2 more" in shown_text(shown)


def shown_text(shown: Board) -> str:
    wide = Console(file=io.StringIO(), width=200, record=True, color_system=None)
    shown.console.height = 6
    wide.print(shown._shown())
    return wide.export_text()


def test_lines_are_plain_when_piped_and_say_how_long_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "LINE_SECONDS", 0.05)
    out = io.StringIO()
    shown = Board(Console(file=out, width=80))
    jobs = [job(tmp_path, number) for number in range(3)]
    shown.knows(jobs, {one.number: Outcome("waiting") for one in jobs})
    shown.open(True, at_a_time=2)
    shown.started(jobs[0])
    shown.started(jobs[1])
    log(jobs[1], {"step": 10, "epoch": 0, "val/certified_accuracy": 0.5})
    shown.ended(jobs[0], Outcome("done", 0, 600.0))
    for _ in range(100):
        if "; job 1 25 %" in out.getvalue():
            break
        board.time.sleep(0.05)
    shown.close()
    lines = out.getvalue().splitlines()
    assert "job 0 done in 10 min 0 s" in lines
    assert any(
        "1 of 3 done, best validated 50.00 % (job 1), about " in line and "; job 1 25 %" in line for line in lines
    )
    assert "\x1b" not in out.getvalue()


def test_the_time_left_is_that_of_the_jobs_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(state.time, "monotonic", lambda: now)
    jobs = [job(tmp_path, number) for number in range(6)]
    known = state.State()
    known.knows(jobs, {one.number: Outcome("waiting") for one in jobs})
    known.at_a_time = 2
    known.started(jobs[0])
    assert known.seconds_left() is None
    now += 30
    log(jobs[0], {"step": 10, "epoch": 0, "val/certified_accuracy": 0.5})
    known.look()
    assert known.seconds_left() == pytest.approx((90 + 5 * 120) / 2)
    known.ended(jobs[0], Outcome("done", 0, 100.0))
    assert known.seconds_left() == pytest.approx(5 * 100 / 2)
