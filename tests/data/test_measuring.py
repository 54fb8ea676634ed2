"""Data of one's own on the command line: what nobody declares is found in them, and stands in the configuration."""

import numpy as np
import pytest
from PIL import Image

from certtrain.cli.assembly.data import make_source
from certtrain.cli.configuration.recompose import compose_anew
from certtrain.cli.configuration.schema import parse
from certtrain.errors import ConfigError

RANDOM = np.random.default_rng(0)


def source(*overrides):
    return make_source(parse(compose_anew(overrides)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten colour images of two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    for split, number in (("train", 3), ("test", 2)):
        for kind in ("cat", "dog"):
            (folder / split / kind).mkdir(parents=True)
            for i in range(number):
                pixels = RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / kind / f"{i}.png")
    return folder


def test_a_folder_of_images_needs_no_declaration(pictures):
    found = source("data=folder", f"data.path={pictures}")
    assert (found.shape, found.num_classes) == ((3, 6, 5), 2)
    pixels = np.stack([np.asarray(Image.open(file)) for file in sorted(pictures.glob("train/*/*.png"))]) / 255
    assert found.mean == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-4)
    assert found.std == pytest.approx(pixels.std((0, 1, 2)), abs=1e-4)
    assert len(found.load().train) == 6
    declared = ("data.source.mean=[0.1,0.2,0.3]", "data.source.num_classes=2", "data.name=pets")
    assert source("data=folder", f"data.path={pictures}", *declared).mean == (0.1, 0.2, 0.3)


def test_an_array_file_needs_no_declaration(tmp_path):
    images = RANDOM.integers(0, 256, (12, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.arange(12) % 4, x_test=images[:2], y_test=[0, 5])
    found = source("data=arrays", f"data.path={tmp_path / 'a.npz'}")
    assert (found.shape, found.num_classes) == ((1, 4, 4), 6)
    assert len(found.load().test) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=folder"], "data=folder: set data.path to a folder, or data.source.hub"),
        (["data=hub"], "data=hub: set data.path to a folder, or data.source.hub"),
        (["data=arrays"], "data=arrays: set data.path to a NumPy file"),
        (["data=folder", "data.path=nowhere"], "data=folder: 'nowhere' is no folder; data.path must hold"),
        (["data=folder", "data.path={}", "data.source.num_classes=3"], "has 2 classes .*, but 3 are declared"),
        (["data=folder", "data.path={}", "data.source.shape=[1,6,5]"], "is a colour image, but the declared shape"),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(pictures, overrides, message):
    with pytest.raises(
        ConfigError, match=f"^data=.*{message[11:]}" if message.startswith("data=") else message
    ) as caught:
        source(*(word.format(pictures) for word in overrides))
    assert "\n" not in str(caught.value)
    assert not str(caught.value).startswith("DataError")
