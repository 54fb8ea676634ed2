"""Data that cannot be trained on are refused, in one line, before there is a run directory; what is read, is told."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from image_files import as_image, pixels, write_image_folder, write_parquet, write_parquet_folder

from certtrain.cli.assembly import handover
from certtrain.cli.assembly.data import make_data
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.job.preflight import preflight
from certtrain.data.source import Source
from certtrain.errors import CerttrainError

TINY = ("data=mnist", "data.source.shape=[1,4,5]", "data.source.num_classes=3", "data.validation=0.4")
RUN = ("model=mlp", "model.widths=[4]", "method=grad", "relaxation=ibp")


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    handover.forget()
    GlobalHydra.instance().clear()


def check(folder: Path | None, *overrides: str, multirun: bool = False) -> None:
    tiny = () if folder is None else (*TINY, f"data.path={folder}")
    preflight(Command((*tiny, *RUN, *overrides), multirun, False))


def refusal(folder: Path | None, *overrides: str) -> str:
    with pytest.raises(CerttrainError) as error:
        check(folder, *overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_last_image_may_be_the_damaged_one(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    file = tmp_path / "test" / "2" / "0.png"
    file.write_bytes(file.read_bytes()[:40])
    assert "test/2/0.png cannot be decoded" in refusal(tmp_path)


def test_an_image_of_another_size(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    images = [*pixels(3), pixels(1)[0, :, :3]]
    write_parquet(tmp_path / "test-00000-of-00001.parquet", images, [0, 1, 2, 0])
    assert "row 3 of " in (text := refusal(tmp_path))
    assert "test-00000-of-00001.parquet is 3x5 pixels large, but the declared shape is [1, 4, 5]" in text


def test_a_validation_part_that_leaves_nothing() -> None:
    assert "1437 training images holds out 1437: none is left" in refusal(None, "data.validation=0.9999")
    assert "holds out 0: data.validation=0 asks for that" in refusal(None, "data.validation=1e-5")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.source.num_classes=1", "data=digits: num_classes must be a whole number from 2 on, not 1"),
        ("data.source.num_classes=true", "num_classes must be a whole number from 2 on, not True"),
        ("data.source.num_classes=9", "has label 9, but 9 classes are declared (labels 0 to 8)"),
        ("data.source.std=[nan]", "mean and std must be numbers, not [0.3058, nan]"),
        ("data.max_duplicates=2", "data.max_duplicates must be less than or equal to 1"),
    ],
)
def test_declarations_that_cannot_be(override: str, words: str) -> None:
    assert words in refusal(None, override)


def test_test_images_in_training_are_refused_unless_allowed(tmp_path: Path) -> None:
    written = write_image_folder(tmp_path)
    as_image(written["1"][2]).save(tmp_path / "train" / "2" / "9.png")
    assert "1 of 3 test images (33.3 %) are also training images, bit by bit" in refusal(tmp_path)
    check(tmp_path, "data.max_duplicates=0.34")


def test_images_are_read_once_for_preflight_and_run_and_once_for_a_sweep(tmp_path: Path, monkeypatch) -> None:
    write_image_folder(tmp_path)
    read, load = [], Source.load
    monkeypatch.setattr(Source, "load", lambda self: read.append(self) or load(self))
    check(tmp_path, "eps=0.1,0.2", multirun=True)
    assert len(read) == 1
    command = Command((*TINY, *RUN, f"data.path={tmp_path}"), False, False)
    preflight(command)
    assert len(read) == 2
    (config,) = [parse(plain(job)) for job in compose_jobs(command)]
    data = make_data(config)
    data.setup()
    assert len(read) == 2
    handover.forget()
    again = make_data(config)
    again.setup()
    assert len(read) == 3
    assert torch.equal(again.splits.train.inputs, data.splits.train.inputs)


def test_declarations_of_the_wrong_type() -> None:
    """In a process where annotations are not checked, as they are for people."""
    script = (
        "import sys\n"
        "from certtrain.cli.configuration.compose import Command\n"
        "from certtrain.cli.job.preflight import preflight\n"
        "from certtrain.errors import CerttrainError\n"
        "for override in sys.argv[1:]:\n"
        "    try:\n"
        "        preflight(Command((override,), False, False))\n"
        "    except CerttrainError as error:\n"
        "        print(error)\n"
    )
    expected = {
        "data.source.num_classes=2.5": "data=digits: num_classes must be a whole number from 2 on, not 2.5",
        "data.source.num_classes=ten": "data=digits: num_classes must be a whole number from 2 on, not ten",
        "data.source.shape=8": "data=digits: shape must be a list, not 8",
        "data.source.shape=[1,8,8.5]": "data=digits: shape must be [channels, height, width], not [1, 8, 8.5]",
        "data.source.mean=0.3": "data=digits: mean must be a list, not 0.3",
        "data.source.std=[a]": "data=digits: mean and std must be numbers, not [0.3058, 'a']",
    }
    done = subprocess.run([sys.executable, "-c", script, *expected], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(expected.values())
