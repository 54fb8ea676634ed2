"""Radii may be written as the literature writes them."""

import pytest

from certtrain.cli.commands.certify import read_overrides
from certtrain.cli.configuration.compose import compose_jobs
from certtrain.cli.configuration.fractions import in_decimals
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.rundir.recorded import parse_command


def radii(*words: str) -> list[float]:
    return [parse(plain(job)).eps for job in compose_jobs(parse_command(list(words)))]


def test_a_radius_may_be_a_fraction_also_in_a_sweep() -> None:
    assert radii("data=cifar10", "eps=2/255") == [2 / 255]
    assert radii("-m", "eps=0.5/255,8/255,0.1") == [0.5 / 255, 8 / 255, 0.1]


def test_certify_takes_fractions_alone_and_in_a_list() -> None:
    assert read_overrides(["eps=[1/255,2/255]"])[1] == [1 / 255, 2 / 255]
    assert read_overrides(["eps=8/255", "certify.shard=0/4"]) == ([f"eps={8 / 255!r}"], [None], (0, 4))


@pytest.mark.parametrize("word", ["data.path=1/2", "eps=2/0", "eps=runs/1/255", "eps=1/2/3", "~eps", "eps=0.1"])
def test_what_is_no_fraction_of_a_radius_stays(word: str) -> None:
    assert in_decimals([word]) == [word]
