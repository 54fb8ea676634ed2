"""Which files of a folder are which split: what its top level says, whatever the names further down are."""

import os

import pytest
from image_files import as_image, message, pixels, source, write_image_folder, write_parquet

from certtrain.data.layout import find_layout
from certtrain.errors import DataError

pytestmark = pytest.mark.usefixtures("hugging_face_cache")


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()


def names(paths):
    return [path.name for path in paths]


@pytest.mark.parametrize(
    ("entries", "train", "test"),
    [
        (["train/", "test/"], ["train"], ["test"]),
        (["TRAIN/", "Test/"], ["TRAIN"], ["Test"]),
        (["training_set/", "test2017/", "val2017/"], ["training_set"], ["test2017"]),
        (["train/", "train_old/", "test/", "test_tube/"], ["train"], ["test"]),
        (["train/", "evaluation/"], ["train"], ["evaluation"]),
        (["train/", "eval/", "test/"], ["train"], ["test"]),
        (["train.parquet", "test.PARQUET"], ["train.parquet"], ["test.PARQUET"]),
        (["train-with-test-labels.parquet", "test.parquet"], ["train-with-test-labels.parquet"], ["test.parquet"]),
        (["test-of-training.parquet", "train1.parquet"], ["train1.parquet"], ["test-of-training.parquet"]),
        (["x_train.parquet", "x_test_2.parquet"], ["x_train.parquet"], ["x_test_2.parquet"]),
        (["trainer.parquet", "train.parquet", "contest.parquet", "test.parquet"], ["train.parquet"], ["test.parquet"]),
        (
            ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"],
            ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
            ["test-00000-of-00001.parquet"],
        ),
        (["cifar/train/", "cifar/test/", "README.md", ".git/train/"], ["train"], ["test"]),
        (["data/train.parquet", "data/test.parquet", "docs/", "src/"], ["train.parquet"], ["test.parquet"]),
        (["train/", "test/", "__MACOSX/train/", ".test/"], ["train"], ["test"]),
    ],
)
def test_the_top_level_decides(tmp_path, entries, train, test):
    touch(tmp_path, *entries)
    found = find_layout(tmp_path, "train", "test")
    assert (names(found.train), names(found.test)) == (train, test)


@pytest.mark.parametrize(
    ("declared", "entries", "test"),
    [
        ("valid", ["val/", "test/"], ["val"]),
        ("valid", ["test/"], ["test"]),
        ("valid", ["dev.parquet"], ["dev.parquet"]),
        ("validation", ["valid/"], ["valid"]),
        ("hard", ["hard/", "test/"], ["hard"]),
        ("test_hard", ["test/", "test_hard/"], ["test_hard"]),
    ],
)
def test_other_words_for_the_test_split(tmp_path, declared, entries, test):
    touch(tmp_path, "train/", *entries)
    assert names(find_layout(tmp_path, "train", declared).test) == test


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["train/"], "has no split 'test', only train"),
        (["train/", "val/"], "has no split 'test', only train, val"),
        (["cat/", "dog/"], "has no split 'train'$"),
        (["bullet_train/", "other_test/"], "has no split 'train'$"),
        (["train/", "eval/", "testing/"], "has testing and eval, which may all be the split 'test'"),
        (["train_a/", "train_b/", "test/"], "has train_a and train_b, which may both be the split 'train'"),
        (["train/", "train.parquet", "test/"], "has train and train.parquet, which may both be the split 'train'"),
        (["my-train-and-test.parquet"], "contains train and test: let it begin with the split it belongs to"),
        (
            ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet", "test.parquet"],
            "train-00001-of-00003.parquet is missing: there are 2 of 3 such files",
        ),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, entries, words):
    touch(tmp_path, *entries)
    with pytest.raises(DataError, match=words) as error:
        find_layout(tmp_path, "train", "test")
    message(error)


def test_folders_in_each_other_by_links_come_to_an_end(tmp_path):
    (tmp_path / "data").symlink_to(tmp_path)
    with pytest.raises(DataError, match="has no split 'train'"):
        find_layout(tmp_path, "train", "test")


CLASSES = ("cat", "dog", "test_tube", "train", "eval", "bullet_train")


def test_classes_may_be_called_as_splits(tmp_path):
    """Three images of each class: two for training, one for test, none of them anywhere else."""
    written = write_image_folder(tmp_path, classes=CLASSES)
    splits = source(num_classes=6, path=str(tmp_path)).load()
    assert splits.classes == tuple(sorted(CLASSES))
    for label, name in enumerate(splits.classes):
        assert (splits.train.inputs[splits.train.labels == label].numpy() == written[name][:2]).all()
        assert (splits.test.inputs[splits.test.labels == label].numpy() == written[name][2:]).all()
    assert splits.duplicates == 0


def test_links_are_followed(tmp_path):
    """Links to a split, a class and an image, all from outside the folder."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    write_image_folder(elsewhere)
    (folder / "test").mkdir(parents=True)
    (folder / "train").symlink_to(elsewhere / "train")
    for name in ("0", "1"):
        (folder / "test" / name).symlink_to(elsewhere / "test" / name)
    (folder / "test" / "2").mkdir()
    (folder / "test" / "2" / "x.png").symlink_to(elsewhere / "test" / "2" / "0.png")
    splits = source(path=str(folder)).load()
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert splits.test.labels.tolist() == [0, 1, 2]


def test_links_that_lead_nowhere_or_round_and_round_are_refused(tmp_path):
    write_image_folder(tmp_path)
    link = tmp_path / "test" / "1" / "link"
    link.symlink_to(tmp_path / "nothing.png")
    with pytest.raises(DataError, match="test/1/link is a link that leads nowhere"):
        source(path=str(tmp_path)).check()
    link.unlink()
    link.symlink_to(tmp_path / "test")
    with pytest.raises(DataError, match="is a link to a folder that it lies in") as error:
        source(path=str(tmp_path)).check()
    message(error)


@pytest.mark.parametrize("name", ["run[1]", "a*b?c", "{x}", "x::y", "zip:", "ä ö#%20", "-", "[!a]"])
def test_names_of_folders_are_no_patterns(tmp_path, name):
    write_image_folder(tmp_path / name / "images", classes=("[1]", name, "c"))
    assert len(source(path=str(tmp_path / name / "images")).load().train) == 6
    parquet = tmp_path / name / "parquet"
    write_parquet(parquet / f"train-{name}.parquet", pixels(3), [0, 1, 2])
    write_parquet(parquet / "test.parquet", pixels(3, seed=1), [0, 1, 2])
    assert len(source(path=str(parquet)).load().train) == 3


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    write_image_folder(tmp_path)
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("train/1"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"Permission denied.*train/1") as error:
        source(path=str(tmp_path)).check()
    message(error)


def test_images_at_any_depth_belong_to_the_first_folder(tmp_path):
    """As in Tiny ImageNet: train/<class>/images/*.JPEG."""
    write_image_folder(tmp_path)
    for split in ("train", "test"):
        for label in "012":
            inside = tmp_path / split / label / "images" / "more"
            inside.mkdir(parents=True)
            (tmp_path / split / label / "0.png").rename(inside / "0.PNG")
    splits = source(path=str(tmp_path)).load()
    assert splits.test.labels.tolist() == [0, 1, 2]
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_clutter_is_left_out_and_other_files_are_told(tmp_path):
    write_image_folder(tmp_path)
    touch(tmp_path, ".DS_Store", "train/.DS_Store", "train/0/._0.png", "train/__MACOSX/0.png", "train/.hidden/0.png")
    touch(tmp_path, "test/1/Thumbs.db", "validation/", "extra.parquet", "README.md")
    splits = source(path=str(tmp_path)).load()
    assert (len(splits.train), len(splits.test)) == (6, 3)
    assert splits.notes == (
        "beside the splits, and not used: extra.parquet, validation",
        "not images by name, and not used: Thumbs.db",
    )


def test_formats_and_endings_may_be_mixed(tmp_path):
    written = write_image_folder(tmp_path)
    image = as_image(written["1"][2])
    (tmp_path / "test" / "1" / "0.png").unlink()
    image.save(tmp_path / "test" / "1" / "0.BmP")
    assert (source(path=str(tmp_path)).load().test.inputs[1].numpy() == written["1"][2]).all()


def test_one_numbering_for_both_splits_where_a_class_is_missing_in_one(tmp_path):
    write_image_folder(tmp_path, classes=("a", "b", "c"))
    (tmp_path / "test" / "a" / "0.png").unlink()
    (tmp_path / "test" / "a").rmdir()
    (tmp_path / "train" / "b" / "0.png").unlink()
    (tmp_path / "train" / "b" / "1.png").unlink()
    splits = source(path=str(tmp_path)).load()
    assert splits.train.labels.tolist() == [0, 0, 2, 2]
    assert splits.test.labels.tolist() == [1, 2]


def test_numbers_are_in_numerical_order(tmp_path):
    write_image_folder(tmp_path, classes=("1", "2", "10"))
    assert source(path=str(tmp_path)).load().classes == ("1", "2", "10")


def test_another_number_of_classes_names_the_likely_reason(tmp_path):
    write_image_folder(tmp_path, classes=("a", "b", "c"))
    (tmp_path / "test" / "b").rename(tmp_path / "test" / "B")
    touch(tmp_path, "train/new folder/")
    with pytest.raises(DataError) as error:
        source(path=str(tmp_path)).check()
    assert (
        "has 5 classes (B, a, b, ... (5 in all)), but 3 are declared "
        "(only in training: b, new folder; only in test: B; without images: new folder)"
    ) in message(error)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["train/0/x.png", "train/x.png", "test/0/x.png"], "train/x.png lies in no folder of a class"),
        (["train/x.txt", "test/0/x.png"], "train holds neither images nor Parquet files"),
        (["train/0/x.png", "train/x.parquet", "test/0/x.png"], "train holds both images and Parquet files"),
        (["train/0/x.png", "test.parquet"], "has Parquet files for one split only"),
    ],
)
def test_other_contents_of_splits_are_refused(tmp_path, entries, words):
    touch(tmp_path, *entries)
    with pytest.raises(DataError, match=words) as error:
        source(path=str(tmp_path)).check()
    assert "data.path must hold train-*.parquet" in message(error)


def test_parquet_files_in_the_folder_of_their_split(tmp_path):
    write_parquet(tmp_path / "default" / "train" / "0000.parquet", pixels(3), [0, 1, 2])
    write_parquet(tmp_path / "default" / "train" / "0001.parquet", pixels(3, seed=1), [0, 1, 2])
    write_parquet(tmp_path / "default" / "test" / "0000.parquet", pixels(3, seed=2), [2, 1, 0])
    splits = source(path=str(tmp_path)).load()
    assert splits.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert splits.test.labels.tolist() == [2, 1, 0]
