import itertools

import pytest
import torch
from torch.nn.functional import pad

from certtrain.data.augment import Augmentation
from certtrain.errors import ConfigError


def images(batch=40, channels=3, height=5, width=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator)


def variants(image, crop, flip):
    """Every image that the augmentation may make of this one, by slicing and flipping alone."""
    _, height, width = image.shape
    padded = pad(image, (crop,) * 4)
    for top, left in itertools.product(range(2 * crop + 1), repeat=2):
        window = padded[:, top : top + height, left : left + width]
        yield window
        if flip:
            yield window.flip(2)


@pytest.mark.parametrize(("crop", "flip"), [(0, True), (1, False), (2, True)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_output_is_a_shifted_or_flipped_input(crop, flip, channels):
    before = images(channels=channels)
    after = Augmentation(crop, flip)(before, seed=0, epoch=0, number=0)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    for old, new in zip(before, after, strict=True):
        assert any(torch.equal(new, variant) for variant in variants(old, crop, flip))


def test_all_offsets_and_both_orientations_occur():
    before = images(batch=1).expand(600, -1, -1, -1)
    after = Augmentation(crop=1, flip=True)(before, seed=0, epoch=0, number=0)
    counts = [sum(torch.equal(new, variant) for new in after) for variant in variants(before[0], crop=1, flip=True)]
    assert sum(counts) == 600
    assert min(counts) > 600 / 18 / 3


def test_flip_alone_mirrors_about_half():
    before = images(batch=1000)
    after = Augmentation(flip=True)(before, seed=0, epoch=0, number=0)
    mirrored = sum(torch.equal(new, old.flip(2)) for old, new in zip(before, after, strict=True))
    assert 420 < mirrored < 580


def test_without_crop_and_flip_the_images_stay():
    before = images()
    assert torch.equal(Augmentation()(before, seed=0, epoch=0, number=0), before)


def test_a_pure_function_of_seed_epoch_and_number():
    before, augment = images(), Augmentation(2, True)
    kept = before.clone()
    first = augment(before, 1, 2, 3)
    torch.manual_seed(9)
    assert torch.equal(augment(before, 1, 2, 3), first)
    assert torch.equal(before, kept)
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not torch.equal(augment(before, *other), first)


def test_float_images_are_moved_without_rounding():
    before = images()
    moved = Augmentation(2, True)(before, 0, 0, 0)
    assert torch.equal(Augmentation(2, True)(before.double() / 255, 0, 0, 0), moved.double() / 255)


def test_negative_crop_is_refused():
    with pytest.raises(ConfigError, match=r"data\.augment\.crop must be 0 or more pixels, not -1"):
        Augmentation(crop=-1)
