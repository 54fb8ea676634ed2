"""Labels of Parquet files: of any integer type, exactly as they are or refused, with one meaning in all files."""

import pyarrow
import pyarrow.parquet
import pytest
from image_files import message, pixels, source, write_parquet, write_parquet_folder

from certtrain.errors import DataError

pytestmark = pytest.mark.usefixtures("hugging_face_cache")
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def write_labels(folder, values, kind):
    """The usual folder with other labels of the six training images."""
    write_parquet_folder(folder, class_names=None)
    file = folder / "train-00000-of-00001.parquet"
    table = pyarrow.parquet.read_table(file).drop_columns(["label", "note"]).replace_schema_metadata()
    pyarrow.parquet.write_table(table.append_column("label", pyarrow.array(values, kind)), file)


@pytest.mark.parametrize("kind", INTEGERS)
def test_labels_of_every_integer_type(tmp_path, kind):
    write_labels(tmp_path, [2, 1, 0, 0, 1, 2], kind)
    assert source(path=str(tmp_path)).load().train.labels.tolist() == [2, 1, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([0.0, 1.0, 2.0, 0.0, 1.0, 2.0], "float64", r"column 'label' of .*train-.*\.parquet holds double"),
        ([0, 1, 2, 0, 1, 2], "float16", "labels must be integers, .* holds halffloat"),
        (["a"] * 6, "string", "labels must be integers, .* holds string"),
        ([True, False] * 3, "bool", "labels must be integers, .* holds bool"),
        ([[0]] * 6, pyarrow.list_(pyarrow.int64()), "labels must be integers, .* holds list"),
        ([0, 1, 2, None, 0, 1], "int64", r"row 3 of .*train-00000-of-00001\.parquet has no label"),
        ([0, 1, 2, 0, -1, 1], "int8", r"row 4 of .*\.parquet has label -1, but 3 classes are declared \(labels 0 to 2"),
        ([0, 1, 2, 0, 1, 3], "uint8", r"row 5 of .*\.parquet has label 3, but 3 classes"),
        ([0, 1, 2**64 - 1, 0, 1, 2], "uint64", r"row 2 of .*\.parquet has label 18446744073709551615, but"),
    ],
)
def test_other_labels_are_refused_by_file_and_row(tmp_path, values, kind, words):
    import numpy

    write_labels(tmp_path, numpy.array(values, "float16") if kind == "float16" else values, kind)
    with pytest.raises(DataError, match=words) as error:
        source(path=str(tmp_path)).load()
    message(error)


def test_unlabelled_images_do_not_become_the_last_class(tmp_path):
    names = ("0", "1", "2")
    write_parquet_folder(tmp_path, class_names=names)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", pixels(2), [-1, -1], class_names=names)
    with pytest.raises(DataError, match=r"row 0 of .*test-00000-of-00001\.parquet has label -1"):
        source(path=str(tmp_path)).load()


def test_classes_in_another_order_are_the_same_classes(tmp_path):
    """`datasets` takes the names of the first file for all."""
    write_parquet(tmp_path / "train-0.parquet", pixels(3, seed=1), [0, 1, 2], class_names=("a", "b", "c"))
    write_parquet(tmp_path / "train-1.parquet", pixels(3, seed=2), [0, 1, 2], class_names=("b", "a", "c"))
    write_parquet(tmp_path / "test.parquet", pixels(3, seed=3), [0, 1, 2], class_names=("c", "b", "a"))
    splits = source(path=str(tmp_path)).load()
    assert splits.classes == ("a", "b", "c")
    assert splits.train.labels.tolist() == [0, 1, 2, 1, 0, 2]
    assert splits.test.labels.tolist() == [2, 1, 0]


def test_classes_named_by_numbers_are_these(tmp_path):
    names = sorted(map(str, range(11)))
    write_parquet(tmp_path / "train.parquet", pixels(11), list(range(11)), class_names=names)
    write_parquet(tmp_path / "test.parquet", pixels(1, seed=1), [10], class_names=[str(label) for label in range(11)])
    splits = source(num_classes=11, path=str(tmp_path)).load()
    assert splits.train.labels.tolist() == [int(name) for name in names]
    assert splits.test.labels.tolist() == [10]


@pytest.mark.parametrize("other", [("a", "b", "d"), None])
def test_other_classes_are_refused(tmp_path, other):
    write_parquet_folder(tmp_path)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", pixels(1), [0], class_names=other)
    with pytest.raises(DataError, match=r"test-.* and .*train-.* do not name the same classes \((a, b, )?c"):
        source(path=str(tmp_path)).load()
