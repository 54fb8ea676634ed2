"""What was decoded is decoded once: known by the content of the files, and no word is taken of what is damaged."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import as_image, pixels, source, write_image_folder, write_parquet_folder

from certtrain.data import digits, huggingface
from certtrain.data.source import Splits
from certtrain.errors import DataError

pytestmark = pytest.mark.usefixtures("hugging_face_cache")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "cache"  # not among the images
    monkeypatch.setenv("CERTTRAIN_CACHE", str(folder))
    return folder


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that were decoded whole."""
    found, original = [], huggingface.decode_split

    def decode(split, *arguments):
        if arguments[-1] is None:
            found.append(split.name)
        return original(split, *arguments)

    monkeypatch.setattr(huggingface, "decode_split", decode)
    return found


def kept(cache: Path) -> list[Path]:
    return list(cache.glob("decoded-*/*.pt"))


def same(one: Splits, two: Splits) -> bool:
    pairs = ((getattr(one, name), getattr(two, name)) for name in ("train", "test"))
    equal = all(torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels) for a, b in pairs)
    return equal and (one.classes, one.notes) == (two.classes, two.notes)


@pytest.mark.parametrize("write", [write_parquet_folder, write_image_folder])
def test_files_are_decoded_once_whatever_they_are_called_or_declared_to_be(tmp_path, decodings, cache, write) -> None:
    write(tmp_path / "data")
    (tmp_path / "data" / "more").mkdir()
    first = source(path=str(tmp_path / "data")).load()
    assert len(decodings) == 2
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    again = source(path=str(tmp_path / "copy"), name="other", mean=[0.1])
    again.check()
    assert same(first, again.load())
    assert len(decodings) == 2
    assert len(kept(cache)) == 1
    with pytest.raises(DataError, match="shape"):
        source(path=str(tmp_path / "copy"), shape=[1, 5, 5]).check()


def test_another_pixel_another_class_and_another_file_are_other_data(tmp_path, decodings) -> None:
    write_image_folder(tmp_path)
    before = source(path=str(tmp_path)).load()
    changed = tmp_path / "train" / "1" / "0.png"
    state = changed.stat()
    as_image(pixels(1, seed=9)[0]).save(changed)
    os.utime(changed, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    after = source(path=str(tmp_path)).load()
    assert (before.train.inputs != after.train.inputs).flatten(1).any(dim=1).sum() == 1
    changed.rename(tmp_path / "train" / "2" / "9.png")
    assert source(path=str(tmp_path)).load().train.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert len(decodings) == 6


def test_what_is_damaged_is_decoded_again(tmp_path, decodings, cache) -> None:
    write_parquet_folder(tmp_path)
    first = source(path=str(tmp_path)).load()
    (file,) = kept(cache)
    content = file.read_bytes()
    for damage in (content[:-1], content[:100] + bytes([content[100] ^ 1]) + content[101:], b""):
        file.write_bytes(damage)
        assert same(source(path=str(tmp_path)).load(), first)
        assert kept(cache) == [file]
        assert file.read_bytes() == content
    assert len(decodings) == 8


def test_nothing_depends_on_the_cache(tmp_path, decodings, cache, monkeypatch) -> None:
    write_parquet_folder(tmp_path)
    cache.write_text("no folder")
    first = source(path=str(tmp_path)).load()
    monkeypatch.setenv("CERTTRAIN_CACHE", "")
    assert same(first, source(path=str(tmp_path)).load())
    assert len(decodings) == 4


def test_processes_that_begin_together_keep_the_same(tmp_path, cache) -> None:
    write_parquet_folder(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: source(path=str(tmp_path)).load(), range(8)))
    assert all(same(found[0], other) for other in found)
    assert len(kept(cache)) == 1
    assert sorted(path.suffix for path in kept(cache)[0].parent.iterdir()) == [".pt"]


def test_a_table_that_only_names_its_images_is_not_kept(tmp_path, cache) -> None:
    """They may change without it."""
    images = {name: tmp_path / f"{name}.png" for name in ("one", "two", "three")}
    for seed, file in enumerate(images.values()):
        as_image(pixels(1, seed=seed)[0]).save(file)
    rows = [{"bytes": None, "path": file.name} for file in images.values()]
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": rows, "label": [0, 1, 2]}), tmp_path / f"{split}.parquet")
    assert len(source(path=str(tmp_path)).load().train) == 3
    assert kept(cache) == []


def test_digits_are_read_where_another_scikit_learn_keeps_them(monkeypatch) -> None:
    own = digits._scans()
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    for one, other in zip(own, digits._scans(), strict=True):
        assert (one == other).all()
