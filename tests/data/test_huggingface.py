import errno
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from image_files import as_image, message, pixels, source, write_image_folder, write_parquet, write_parquet_folder

from certtrain.data import huggingface, tables
from certtrain.errors import DataError

pytestmark = pytest.mark.usefixtures("hugging_face_cache")


@pytest.mark.parametrize("class_names", [("a", "b", "c"), None], ids=["named classes", "plain integers"])
def test_parquet_folder_is_read_exactly(tmp_path, class_names):
    train, test = write_parquet_folder(tmp_path, class_names=class_names)
    tiny = source(path=str(tmp_path))
    tiny.check()
    splits = tiny.load()
    assert splits.train.inputs.dtype == torch.uint8
    assert splits.train.labels.dtype == torch.int64
    assert torch.equal(splits.train.inputs, torch.from_numpy(train))
    assert torch.equal(splits.test.inputs, torch.from_numpy(test))
    assert splits.train.labels.tolist() == [0, 1, 2, 2, 1, 0]
    assert splits.test.labels.tolist() == [2, 0, 1, 1]


def test_colour_images_and_many_shards(tmp_path):
    train = pixels(7, channels=3)
    for shard, rows in enumerate((slice(0, 4), slice(4, 7))):
        file = tmp_path / "data" / f"train-0000{shard}-of-00002.parquet"
        write_parquet(file, train[rows], list(range(7))[rows], image_column="img", class_names=None)
    file = tmp_path / "data" / "test-00000-of-00001.parquet"
    write_parquet(file, train[:1], [0], image_column="img", class_names=None)
    splits = source(channels=3, num_classes=7, image_column="img", path=str(tmp_path)).load()
    assert torch.equal(splits.train.inputs, torch.from_numpy(train))
    assert splits.train.labels.tolist() == list(range(7))


def test_more_images_than_are_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 4)
    train, _ = write_parquet_folder(tmp_path)
    assert torch.equal(source(path=str(tmp_path)).load().train.inputs, torch.from_numpy(train))


def test_image_folder_is_read_exactly_whatever_the_hub_calls_its_columns(tmp_path):
    written = write_image_folder(tmp_path, channels=3)
    tiny = source(channels=3, image_column="img", label_column="fine_label", path=str(tmp_path))
    tiny.check()
    splits = tiny.load()
    for label, images in written.items():
        chosen = splits.train.labels == int(label)
        assert torch.equal(splits.train.inputs[chosen], torch.from_numpy(images[:2]))
        assert torch.equal(splits.test.inputs[splits.test.labels == int(label)], torch.from_numpy(images[2:]))


def test_folders_named_by_numbers_are_these_classes(tmp_path):
    written = write_image_folder(tmp_path, classes=[str(label) for label in range(12)])
    splits = source(num_classes=12, path=str(tmp_path)).load()
    for label, images in written.items():
        found = splits.test.inputs[splits.test.labels == int(label)]
        assert torch.equal(found, torch.from_numpy(images[2:]))


@pytest.mark.parametrize("test_name", ["valid", "validation", "test"])
@pytest.mark.parametrize("write", [write_parquet_folder, write_image_folder])
def test_validation_images_serve_as_test_where_declared(tmp_path, write, test_name):
    write(tmp_path, test_name=test_name)
    assert len(source(test_split="valid", path=str(tmp_path)).load().test) > 0


def test_a_changed_folder_is_read_anew(tmp_path):
    write_parquet_folder(tmp_path)
    tiny = source(path=str(tmp_path))
    tiny.load()
    changed = pixels(6, seed=9)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", changed, [0, 1, 2, 2, 1, 0])
    assert torch.equal(tiny.load().train.inputs, torch.from_numpy(changed))


def test_grey_pixels_stored_as_colour_are_grey(tmp_path):
    grey = pixels(6)
    write_parquet_folder(tmp_path)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", np.repeat(grey, 3, axis=1), [0, 1, 2, 2, 1, 0])
    assert torch.equal(source(path=str(tmp_path)).load().train.inputs, torch.from_numpy(grey))


def test_nothing_is_printed(tmp_path, capfd):
    write_parquet_folder(tmp_path)
    capfd.readouterr()
    source(path=str(tmp_path)).check()
    source(path=str(tmp_path)).load()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", ["/no/such/folder", ""])
def test_missing_folder(path):
    with pytest.raises(DataError) as error:
        source(path=path).check()
    assert message(error).startswith(f"data=tiny: '{path}' is no folder; data.path must hold train-*.parquet")


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"has no split 'train'; data\.path must hold train-\*\.parquet") as error:
        source(path=str(tmp_path)).check()
    message(error)


def test_folder_of_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("no image here")
    with pytest.raises(DataError, match=r"data\.path must hold train-\*\.parquet and test-\*\.parquet") as error:
        source(path=str(tmp_path)).check()
    message(error)


def test_file_that_is_no_parquet(tmp_path):
    write_parquet_folder(tmp_path)
    (tmp_path / "train-00000-of-00001.parquet").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(
        DataError, match=r"train-00000-of-00001\.parquet cannot be read as Parquet .*; data\.path must"
    ) as error:
        source(path=str(tmp_path)).check()
    message(error)


def test_missing_test_split(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00001.parquet", pixels(3), [0, 1, 2])
    with pytest.raises(DataError, match="has no split 'test', only train") as error:
        source(path=str(tmp_path)).check()
    message(error)


def test_missing_column(tmp_path):
    write_parquet_folder(tmp_path, image_column="picture")
    with pytest.raises(DataError, match="has no column 'image', only picture, label, note") as error:
        source(path=str(tmp_path)).check()
    message(error)


def test_wrong_shape_is_found_by_check_and_load(tmp_path):
    write_parquet_folder(tmp_path)
    tiny = source(shape=[1, 5, 4], path=str(tmp_path))
    for read in (tiny.check, tiny.load):
        with pytest.raises(
            DataError,
            match=r"row 0 of .*train-00000-of-00001\.parquet is 4x5 pixels large.*declared shape is \[1, 5, 4\]",
        ):
            read()


def test_one_image_of_another_size_is_named(tmp_path):
    write_image_folder(tmp_path)
    as_image(pixels(1)[0, :, :3]).save(tmp_path / "train" / "1" / "1.png")
    tiny = source(path=str(tmp_path))
    tiny.check()  # cheap: it looks at the first image only
    with pytest.raises(DataError, match=r"train/1/1\.png is 3x5 pixels large"):
        tiny.load()


def test_colour_images_where_grey_is_declared(tmp_path):
    write_parquet_folder(tmp_path, channels=3)
    with pytest.raises(DataError, match=r"row 0 of .* is a colour image"):
        source(path=str(tmp_path)).check()


def test_other_number_of_named_classes(tmp_path):
    write_parquet_folder(tmp_path)
    with pytest.raises(DataError, match=r"has 3 classes \(a, b, c\), but 4 are declared"):
        source(num_classes=4, path=str(tmp_path)).check()


def test_hub_without_network_fails_quickly_and_says_what_to_do(tmp_path):
    script = (
        "import time\n"
        "from certtrain.data.huggingface import HuggingFaceSource\n"
        "from certtrain.errors import DataError\n"
        "source = HuggingFaceSource('mnist', (1, 28, 28), 10, (0.1,), (0.3,),"
        " 'ylecun/mnist', 'image', 'label', 'train', 'test')\n"
        "import datasets\n"
        "for read in (source.check, source.load):\n"
        "    start = time.perf_counter()\n"
        "    try:\n"
        "        read()\n"
        "    except DataError as error:\n"
        "        print(round(time.perf_counter() - start), error)\n"
    )
    cache = str(tmp_path)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": cache, "HF_DATASETS_CACHE": cache}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        seconds, text = line.split(" ", 1)
        assert int(seconds) <= 5
        assert text.startswith(
            "data=mnist: the Hugging Face hub (ylecun/mnist) cannot be reached and no copy is cached; "
            "set data.path to a folder with train-*.parquet and test-*.parquet, or image folders train/"
        )


def test_a_cached_copy_of_the_hub_needs_no_network(tmp_path, hugging_face_cache, monkeypatch, capfd):
    import datasets

    # A cached hub data set differs from a cached folder only by the owner in its name.
    train, test = write_parquet_folder(tmp_path / "tiny")
    datasets.load_dataset(str(tmp_path / "tiny"))
    (hugging_face_cache / "tiny").rename(hugging_face_cache / "certtrain-tests___tiny")
    monkeypatch.setattr(huggingface, "hub_answers", lambda repository: False)
    capfd.readouterr()
    source().check()
    start = time.perf_counter()
    splits = source().load()
    assert time.perf_counter() - start < 5
    assert torch.equal(splits.train.inputs, torch.from_numpy(train))
    assert torch.equal(splits.test.inputs, torch.from_numpy(test))
    assert capfd.readouterr() == ("", "")
    assert datasets.config.HF_HUB_OFFLINE is (os.environ.get("HF_HUB_OFFLINE") == "1")


def test_hub_is_asked_by_its_id_and_not_for_long(monkeypatch):
    import huggingface_hub

    asked = []

    def dataset_info(self, repository, timeout):
        asked.append((repository, timeout))

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    source().check()
    [(repository, timeout)] = asked
    assert repository == "certtrain-tests/tiny"
    assert timeout <= 10


@pytest.mark.parametrize("file", [None, "/cache/x.arrow"])
def test_a_full_disk_is_named(monkeypatch, hugging_face_cache, file):
    import datasets

    def load_dataset(repository):
        try:
            raise OSError(errno.ENOSPC, "No space left on device", *([file] if file else []))
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("An error occurred while generating") from error

    monkeypatch.setattr(huggingface, "hub_answers", lambda repository: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=f"no space is left on the disk of {file or hugging_face_cache}; HF_HOME"
    ) as error:
        source().load()
    message(error)


def test_a_parquet_file_that_is_damaged_inside_is_named(tmp_path):
    write_parquet_folder(tmp_path)
    file = tmp_path / "test-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet cannot be read as Parquet") as error:
        source(path=str(tmp_path)).load()
    message(error)


def test_mnist_is_complete(mnist):
    assert mnist.train.inputs.shape == (60_000, 1, 28, 28)
    assert mnist.test.inputs.shape == (10_000, 1, 28, 28)
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.train.labels.bincount().tolist() == train
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.test.labels.bincount().tolist() == test


def test_published_statistics_of_mnist(mnist):
    counts = np.bincount(mnist.train.inputs.numpy().ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = np.average(values, weights=counts)
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert np.sqrt(np.average((values - mean) ** 2, weights=counts)) == pytest.approx(0.3081, abs=5e-5)
