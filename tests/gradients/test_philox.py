"""Random numbers are functions of their key and counter, whoever computes them."""

import pytest
import torch
from scipy import stats

from certtrain.gradients import philox

CPU = torch.device("cpu")


@pytest.mark.parametrize("key", [0, 123456789, 2**63 - 25])
@pytest.mark.parametrize("streams", [range(3), range(1 << 40, (1 << 40) + 5, 2)])
@pytest.mark.parametrize("words", [1, 9, 64])
def test_tensor_operations_draw_the_bits_that_numpy_draws(key: int, streams: range, words: int) -> None:
    found = philox.by_tensors(key, 2000, streams, words, CPU)
    assert torch.equal(found, philox.by_numpy(key, 2000, streams, words))


def test_bits_are_uniform_and_streams_differ() -> None:
    words = philox.bits(7, 0, range(4), 4096, CPU)
    ones = torch.stack([(words >> bit) & 1 for bit in range(64)]).double().mean((1, 2))
    assert float((ones - 0.5).abs().max()) < 5 * 0.5 / (4 * 4096) ** 0.5
    assert len(words.flatten().unique()) == words.numel()


def test_numbers_are_those_of_ever() -> None:
    """Runs go on with the noise that they began with."""
    expected = torch.tensor([[1.6048, 0.2087], [-0.5009, -1.5998], [0.0238, -0.4283], [0.8410, 1.1399]])
    torch.testing.assert_close(philox.normal(1, 2, range(4), 2, CPU), expected, rtol=0, atol=1e-4)
    words = philox.bits(1, 2, range(4), 1, CPU)
    on_devices = torch.empty(4, 2)  # what elsewhere is made of the same bits
    philox._box_muller(philox._high(words).float(), (words & philox._LOW).float(), on_devices[:, :1], on_devices[:, 1:])
    torch.testing.assert_close(on_devices, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("numbers", [1, 2, 5, 40_001])
def test_a_stream_does_not_depend_on_who_else_is_drawn(numbers: int) -> None:
    several = philox.normal(1, 5, range(8), numbers, CPU)
    assert several.shape == (8, numbers)
    assert torch.equal(philox.normal(1, 5, range(5, 6), numbers, CPU)[0], several[5])
    assert not torch.equal(philox.normal(1, 6, range(8), numbers, CPU), several)


@pytest.mark.parametrize("numbers", [500, 50_000])
def test_threads_change_nothing(numbers: int) -> None:
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(philox.normal(1, 5, range(8), numbers, CPU))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_numbers_are_normal_and_both_of_a_word_are_independent() -> None:
    rows = philox.normal(3, 0, range(8), 50_000, CPU)
    assert bool(rows.isfinite().all())
    assert stats.kstest(rows.flatten().numpy(), "norm").pvalue > 1e-3
    cosines, sines = rows[:, :25_000].flatten().double(), rows[:, 25_000:].flatten().double()
    for power in (1, 2):
        moved = [x**power - (power - 1) for x in (cosines, sines)]
        assert abs(float(stats.pearsonr(*moved).statistic)) < 5 / len(cosines) ** 0.5
