"""A run that is named goes on where its data lie in another folder, or something else computes."""

from pathlib import Path

import pytest
import torch
from run_directories import begun, place

from certtrain.cli.rundir.directory import Change, RunDirectory
from certtrain.cli.rundir.moving import moves, tell_moves
from certtrain.cli.rundir.resume import Place
from certtrain.errors import ConfigError

THERE = ("data=mnist", "data.path=there", "trainer.accelerator=gpu", "scheduler=constant", "trainer.max_epochs=4")
HERE = ("data=mnist", "data.path=here", "trainer.accelerator=cpu", "scheduler=constant", "trainer.max_epochs=4")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def knowing_images(run: Path) -> Path:
    torch.save({"global_step": 7, "ImageData": {"training_images": "0" * 16}}, run / "checkpoints" / "last.ckpt")
    return run


def test_the_folder_of_the_data_and_the_accelerator_may_be_others() -> None:
    run = knowing_images(begun(Path("run"), *THERE))
    moved = place("resume=run", *HERE)
    assert (moved.directory, moved.finished) == (run, False)
    assert moved.note == (
        "data.path there -> here: training goes on if the images are the same, in the same order; "
        "trainer.accelerator gpu -> cpu: sums are rounded in another order there, so it does not end bitwise "
        "like a run that stayed"
    )


def test_more_epochs_elsewhere() -> None:
    knowing_images(begun(Path("run"), *THERE, finished=True))
    note = place("resume=run", *HERE, "trainer.max_epochs=6").note
    assert note is not None
    assert note.startswith("trainer.max_epochs 4 -> 6: ")
    assert "; data.path there -> here: " in note


def test_a_finished_run_is_finished_wherever_its_data_are() -> None:
    run = begun(Path("run"), *THERE, finished=True)
    assert place("resume=run", *HERE) == Place(run, finished=True)


def test_a_checkpoint_that_does_not_say_which_images_it_saw() -> None:
    begun(Path("run"), *THERE)
    assert "does not say which images it was trained on, so nothing compares them" in str(
        place("resume=run", *HERE).note
    )


def test_only_a_run_that_is_named_is_moved() -> None:
    begun(Path("run"), *THERE)
    with pytest.raises(ConfigError, match=r"run holds this run elsewhere \(data.path is there .* resume=run moves it"):
        place("hydra.run.dir=run", *HERE)
    with pytest.raises(ConfigError, match=r"run holds another run \(seed is 0 there, 1 here\)"):
        place("resume=run", *HERE, "seed=1")


def test_a_run_that_has_saved_nothing_has_nothing_to_compare() -> None:
    run = begun(Path("run"), *THERE, step=None)
    assert tell_moves(RunDirectory(run), [Change("data.path", "a", "b")]) == [
        "data.path a -> b: training goes on if the images are the same, in the same order"
    ]


def test_changes_are_told_apart() -> None:
    path, seed, device = Change("data.path", 1, 2), Change("seed", 0, 1), Change("trainer.accelerator", "gpu", "cpu")
    assert moves([path, seed, device]) == ([path, device], [seed])
