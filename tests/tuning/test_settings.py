"""What may be searched over and for, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

pytest.importorskip("optuna")

from planted_searches import BOTH, CERTIFIED, DEFAULTS, GRID, MEDIAN, TPE, Planted, bowl, searched

from certtrain.errors import ConfigError
from certtrain.tuning.plan import planned


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        (["lr=1"], {}, "nothing to search over"),
        (["lr=interval(2,1)"], {}, "from a smaller number to a larger one"),
        (["lr=tag(log,interval(0,1))"], {}, "tag log needs an interval above 0"),
        (["lr=tag(lgo,interval(1,2))"], {}, "unknown tag lgo: the one tag is log"),
        (["lr=tag(log,range(1,9))"], {}, "a range has no logarithm"),
        (["lr=1,2", "seed=interval(0,1)"], {}, "what is repeated inside a trial is a list"),
        (["lr=1,2"], {"n_trials": 0}, "n_trials must be a whole number, at least 1, got 0"),
        (["lr=1,2"], {"n_trials": None}, "only hydra/sweeper/sampler=grid knows"),
        (["lr=1,2"], {"storage": "paper"}, "storage must be journal or sqlite, got 'paper'"),
        (["lr=1,2"], {"objectives": []}, "must have at least 1 entry"),
        (["lr=1,2"], {"objectives": ["val/loss"]}, "does not say which way is better, as {val/loss:minimize} does"),
        (["lr=1,2"], {"objectives": [{"val/loss": "down"}]}, "must be maximize or minimize, got 'down'"),
        (["lr=1,2"], {"objectives": ["certified_accuracy"]}, "tuned on them: take val/certified_accuracy"),
        (["lr=1,2"], {"objectives": [{"certified_accuracy_by.ibp": "maximize"}]}, "a figure of the test images"),
        (["lr=1,2"], {"objectives": [{"speed": "maximize"}]}, "unknown figure 'speed': possible are val/"),
        (["lr=1,2"], {"objectives": [CERTIFIED, CERTIFIED]}, "stands there twice"),
        (["lr=1,2"], {"constraints": ["val/natural_accuracy>0.9"]}, "with >= or <="),
        (["lr=1,2"], {"constraints": ["attacked_accuracy>=0.9"]}, "a figure of the test images"),
        (["lr=1,2"], {"objectives": BOTH, "pruner": MEDIAN}, "pruner compares one figure: give one objective"),
        (["lr=1,2"], {"objectives": [{"parameters": "minimize"}], "pruner": MEDIAN}, "not known while a job runs"),
        (["lr=1,2"], {"sampler": {**TPE, "sede": 1}}, "hydra.sweeper.sampler: .*unexpected keyword argument 'sede'"),
        (["lr=interval(1,2)"], {"sampler": GRID}, "lr is an interval; a grid takes lists and ranges"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_line(
    tmp_path: Path, overrides: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        searched(Planted(tmp_path / "search", bowl), overrides, **options)
    assert "\n" not in str(caught.value)


def test_choices_are_overrides_again() -> None:
    typed = [
        "relaxation=ibp,deeppoly",
        "w='a b',c",
        "+k=true,null",
        "n=range(2,9,3)",
        "f=range(0.,1.,0.1)",
        "i=int(interval(1,3))",
    ]
    _, space = planned(DEFAULTS, typed, None)
    values = {"relaxation": "ibp", "w": "'a b'", "+k": None, "n": 5, "f": 3 * 0.1, "i": 2}
    (job,) = space.jobs(values)
    parsed = {o.get_key_element(): o.value() for o in OverridesParser.create().parse_overrides(list(job))}
    assert parsed == {"relaxation": "ibp", "w": "a b", "+k": None, "n": 5, "f": 0.3, "i": 2}
    assert space.parameters[3].values() == [2, 5, 8]


def test_keys_of_a_file_are_searched_unless_they_are_typed() -> None:
    options = {**DEFAULTS, "params": {"lr": "tag(log,interval(1e-3,1))", "sigma": "interval(1,2)"}}
    _, space = planned(options, ["lr=1,2"], None)
    assert {parameter.key: parameter.choices for parameter in space.parameters} == {"lr": (1, 2), "sigma": ()}
