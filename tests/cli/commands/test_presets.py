"""Published settings: each can be read, composes, and trains; the command lists them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import pytorch_lightning as pl
import torch

from certtrain._paths import config_dir
from certtrain.cli.assembly.data import make_data
from certtrain.cli.assembly.network import make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.commands.presets import presets_command
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import RunConfig, parse, plain
from certtrain.cli.estimates.training import run_estimate
from certtrain.cli.help import presets as presets_module
from certtrain.cli.help.page import choices
from certtrain.cli.help.presets import presets
from certtrain.data.module import ImageData
from certtrain.data.source import ArrayPair, Source, Splits
from certtrain.errors import ConfigError

EXPERIMENTS = list(choices(config_dir() / "experiment"))


@dataclass(frozen=True)
class Noise(Source):
    """A few images of any shape."""

    def check(self) -> None:
        """There is nothing to find."""

    def read(self) -> Splits:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.rand((8, *self.shape), generator=generator)
        pair = ArrayPair(inputs, torch.arange(8) % self.num_classes)
        return Splits(pair, ArrayPair(1 - inputs, pair.labels))


def config(*overrides: str) -> RunConfig:
    (job,) = compose_jobs(Command(overrides, False, False))
    return parse(plain(job))


def narrowed(chosen: RunConfig) -> RunConfig:
    """The same with few channels, few neurons and few members: what it is made of stays."""
    node = dict(chosen.model)
    if "convolutions" in node:
        node["convolutions"] = [[min(c, 2), k, s, p] for c, k, s, p in node["convolutions"]]
    node["widths"] = [min(w, 4) for w in node["widths"]]
    data = chosen.data.model_copy(update={"batch_size": 4, "validation": 0.0})
    update = {"model": node, "data": data}
    if chosen.pgpe is not None:
        update["pgpe"] = chosen.pgpe.model_copy(update={"population_size": 4})
    if chosen.rgs is not None:
        update["rgs"] = chosen.rgs.model_copy(update={"samples": 2})
    return chosen.model_copy(update=update)


def noise_for(chosen: RunConfig) -> ImageData:
    given = make_data(chosen)
    facts = given.source
    source = Noise(facts.name, facts.shape, facts.num_classes, facts.mean, facts.std)
    return ImageData(source, 4, 4, 0.0, 0, 1.0, given.augment, chosen.seed)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_trains_two_batches(name: str) -> None:
    chosen = narrowed(config(f"experiment={name}", "schedule.eps.warmup=0"))
    data = noise_for(chosen)
    network, graph = make_network(chosen, data.source)
    before = {key: p.detach().clone() for key, p in network.named_parameters()}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(make_training(chosen, network, graph), data)
    assert trainer.global_step == 2
    assert all(p.isfinite().all() for p in network.parameters())
    assert any(not torch.equal(p, before[key]) for key, p in network.named_parameters())


def test_presets_say_what_was_published_and_what_is_not_known() -> None:
    found = presets()
    sabr, paradox = found["ctbench_cifar10_2_255_sabr"], found["paradox_mnist_conv_ibp"]
    assert (sabr.natural, sabr.certified) == (77.86, 63.61)
    assert "for a smaller network" in sabr.unknown
    assert (paradox.natural, paradox.certified, paradox.verifier) == (None, 86.8, "the relaxation that trains")
    for preset in found.values():
        assert preset.source, preset.name
        assert preset.unknown or None not in (preset.natural, preset.certified), preset.name


# LITERATURE's numbers, as the composed configurations have them.
def test_recipes_are_the_published_ones() -> None:
    two, mnist = config("experiment=ctbench_cifar10_2_255_ibp"), config("experiment=ctbench_mnist_0.1_ibp")
    eps = two.schedule.eps
    assert (two.trainer.max_epochs, two.data.batch_size, eps.warmup, eps.warmup + eps.ramp) == (160, 128, 1, 81)
    assert [round(160 * m) for m in two.scheduler["milestones"]] == [120, 140]
    assert (two.init, two.loss["shi"], two.batch_norm, two.optimizer.clip_norm) == ("shi", 0.5, "recomputed", 10)
    assert mnist.eps * mnist.schedule.eps.scale == pytest.approx(0.2)
    fc = config("experiment=paradox_mnist_fc_hbox").schedule
    assert (fc.natural_weight.start, fc.natural_weight.end, fc.natural_weight.ramp) == (1.0, 0.5, 50)


def listed(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    presets_command(list(arguments))
    return capsys.readouterr().out


def test_the_command_lists_all_or_some(capsys: pytest.CaptureFixture[str]) -> None:
    whole = listed(capsys, ())
    assert all(name in whole for name in presets())
    some = listed(capsys, ("paradox_mnist_fc",))
    assert "paradox_mnist_fc_ibp" in some
    assert "ctbench" not in some
    ours = " ".join(listed(capsys, ("paradox_mnist_conv_ibp",)).split())
    assert "95.3 / 83.1 (50 of 200 epochs" in ours
    with pytest.raises(ConfigError, match=r"^presets: no preset begins with 'paradxo'"):
        presets_command(["paradxo"])


def test_what_a_run_would_take(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    small = narrowed(config("experiment=paradox_mnist_fc_ibp"))
    estimate = run_estimate(small)
    assert estimate.steps == 200 * (60_000 // 4)
    assert 0 < estimate.step_seconds < 10
    unknown = run_estimate(config("model.widths=[4]", "relaxation=ibp", "pgpe.population_size=4"))
    assert unknown.steps is None
    assert "a step" in str(unknown)
    monkeypatch.setattr("certtrain.cli.estimates.training.run_estimate", lambda config: estimate)
    assert "a step" in listed(capsys, ("paradox_mnist_fc_ibp", "--measure"))


def test_a_preset_that_cannot_be_read_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "bad.yaml").write_text("# @package _global_\n# Mine.\n# published: about 90\n")
    monkeypatch.setattr(presets_module, "config_dir", lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"bad\.yaml: a preset says '# published: natural"):
        presets()


def test_own_figures_say_of_what_run_they_are(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = ("published: natural 9.5, certified ?", "verifier: ibp", "source: me", "measured: natural 9.5, certified 8")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# Mine.\n" + "".join(f"# {note}\n" for note in notes))
    monkeypatch.setattr(presets_module, "config_dir", lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"mine\.yaml: '# measured: natural 95\.3, certified 83\.1, on what"):
        presets()
