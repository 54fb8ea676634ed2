"""Times and amounts of memory as people read them."""

import pytest

from certtrain.memory import about_bytes
from certtrain.times import about, duration


def test_a_measured_time_has_its_last_unit() -> None:
    told = [duration(seconds) for seconds in (3.21, 59.94, 61, 3599, 3661)]
    assert told == ["3.2 s", "59.9 s", "1 min 1 s", "59 min 59 s", "1 h 1 min"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0004, "0.4 ms"),
        (0.00996, "10 ms"),
        (0.034, "34 ms"),
        (0.0999, "100 ms"),
        (0.5, "0.5 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (119.4, "119 s"),
        (300, "5 min"),
        (7190, "120 min"),
        (7300, "2 h"),
        (10000, "2.8 h"),
        (35999, "10 h"),
        (80000, "22 h"),
    ],
)
def test_an_estimated_time_has_one_unit(seconds: float, words: str) -> None:
    assert about(seconds) == words
    assert len(words) <= 7


def test_memory_has_one_unit() -> None:
    assert [about_bytes(b) for b in (3 * 10**5, 4260 * 10**6)] == ["0 MB", "4.3 GB"]
