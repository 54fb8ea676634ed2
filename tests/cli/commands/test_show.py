"""`show`: what is composed of a part, as YAML, with the comments of its files; and what may have been meant."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from certtrain import __main__ as program
from certtrain._paths import config_dir
from certtrain.cli.commands.show import show_command, shown
from certtrain.cli.configuration.recompose import compose_anew
from certtrain.errors import ConfigError


@pytest.mark.parametrize(
    ("target", "overrides", "key"),
    [
        ("loss=sabr", ["loss.l1=0.5"], "loss"),
        ("pgpe", ["pgpe.sigma=0.1"], "pgpe"),
        ("schedule.eps", [], "schedule.eps"),
        ("model", ["model=cnn7"], "model"),
        ("eps", ["eps=0.3"], "eps"),
        ("pgpe/noise=low_rank", [], "pgpe.noise"),
    ],
)
def test_what_is_shown_is_what_is_composed(target: str, overrides: list[str], key: str) -> None:
    typed = [*overrides, *([target] if "=" in target else [])]
    wanted = OmegaConf.select(OmegaConf.create(compose_anew(typed)), key)
    found = OmegaConf.select(OmegaConf.create(yaml.safe_load(shown(target, overrides))), key)
    assert found == wanted


def test_keys_have_the_comments_of_their_files() -> None:
    text = shown("loss=sabr")
    (sentence, *_) = (config_dir() / "loss" / "sabr.yaml").read_text().splitlines()
    assert f"\n{sentence}\nloss:\n" in text
    assert text.startswith("# loss=sabr; others: ")
    assert "    # Random starts.\n    restarts: 1\n" in text  # of conf/loss/attack/pgd.yaml
    assert "# Radius of the L-infinity ball" in shown("eps")


def test_an_experiment_is_what_it_says_and_what_it_changes() -> None:
    text = shown("experiment=ctbench_cifar10_2_255_sabr")
    assert "\n# published: natural 77.86, certified 63.61\n" in text
    changed = yaml.safe_load(text)
    assert changed["data"]["name"] == "cifar10"
    assert "seed" not in changed
    composed = compose_anew(["experiment=ctbench_cifar10_2_255_sabr"])
    assert changed["schedule"]["eps"] == {"warmup": 1, "ramp": 80}
    assert changed["loss"] == composed["loss"]


def test_data_are_shown_that_are_not_there() -> None:
    assert yaml.safe_load(shown("data=folder"))["data"]["source"]["shape"] == "${measured:shape}"


def test_choices_of_ones_own_are_shown_with_their_comments(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = "# Mine.\n_target_: mine.Net\n# How deep.\ndepth: 3\n"
    (tmp_path / "model" / "mine.yaml").write_text(text, encoding="utf-8")
    assert "# Mine.\nmodel:\n  _target_: mine.Net\n  # How deep.\n  depth: 3\n" in shown(
        "model=mine", (), str(tmp_path)
    )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("pgp", "no group, node or key 'pgp'; did you mean pgpe\\?"),
        ("loss=sabre", "unknown loss 'sabre': .*; did you mean sabr\\?"),
        ("los=sabr", "unknown key 'los'; did you mean loss\\?"),
        ("schedule.epz", "no group, node or key 'schedule.epz'; did you mean schedule.eps\\?"),
        ("loss/attack", "nothing of loss/attack is chosen: add one of loss/attack=pgd"),
        ("experiment", "nothing of experiment is chosen: add one of experiment="),
        ("nothing_like_it", "--help lists groups, --cfg job shows all keys"),
        ("hydra", "no group, node or key 'hydra'"),
    ],
)
def test_what_is_none_is_told_in_one_line(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        shown(target)
    assert "\n" not in str(caught.value)


def test_of_a_run_its_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"is a run: its configuration is .*config\.yaml"):
        show_command([str(tmp_path)])


def test_the_command_prints_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["certtrain", "show", "eps", "eps=0.25"])
    assert program.main() == 0
    assert capsys.readouterr().out.endswith("\neps: 0.25\n")
