"""Where the run of a command goes; nothing is trained here."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from run_directories import SMALL, begun, node, place

from certtrain.cli.configuration.compose import Command
from certtrain.cli.configuration.explain import as_typed
from certtrain.cli.configuration.parser import read_arguments
from certtrain.cli.job.preflight import preflight
from certtrain.cli.rundir.directory import RunDirectory, difference
from certtrain.cli.rundir.recorded import as_command
from certtrain.cli.rundir.resume import Place
from certtrain.errors import CerttrainError, ConfigError
from certtrain.lock import InUse, holder, locked
from certtrain.sweep.launcher import quoted


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_configuration_survives_its_file() -> None:
    options = ("pgpe.sigma=1e-7", "method=pgpe", "data.path=null", "certify.verifiers=[ibp,deeppoly]", "model=cnn7")
    path = begun(Path("run"), *options)
    there = RunDirectory(path).configuration()
    assert there is not None
    assert difference(there, node(*options)) is None
    assert there == node(*options)
    assert difference(there, node(*options, "seed=3")) == "seed is 0 there, 3 here"
    assert difference(there, node(*options, "pgpe.sigma=1e-6")) == "pgpe.sigma is 1e-07 there, 1e-06 here"
    assert difference(there, node(*options, "certify.verifiers=[ibp]")) == (
        "certify.verifiers is ['ibp', 'deeppoly'] there, ['ibp'] here"
    )


def test_how_a_run_is_watched_over_makes_it_no_other_run() -> None:
    others = ("checkpoint.every_generations=3", "preemption.signals=[]", "preemption.exit_code=0", "resume=never")
    assert difference(node(), node(*others, "logger=wandb")) is None


def test_a_population_of_before_there_were_control_variates_goes_on_without() -> None:
    before = node("method=pgpe")
    for key in ("control_variate", "control_samples", "shrinkage"):
        del before["pgpe"][key]
    assert difference(before, node("method=pgpe", "pgpe.control_variate=none", "pgpe.shrinkage=none")) is None
    assert difference(before, node("method=pgpe")) == "pgpe.control_variate is none there, gradient here"


def test_a_run_of_before_there_were_cascades_asked_everybody_and_attacked_by_pgd() -> None:
    before = node()
    del before["certify"]["cascade"], before["certify"]["attack"]["name"]
    assert difference(before, node()) is None
    assert difference(before, node("certify.cascade=first")) == "certify.cascade is all there, first here"
    ensemble = difference(before, node("certify/attack=ensemble"))
    assert ensemble == "certify.attack.name is pgd there, ensemble here"


def test_options_of_verifiers_count_where_these_are_asked() -> None:
    """A run of before there was a node `verifier` had the options that its defaults are."""
    before = {key: value for key, value in node().items() if key != "verifier"}
    assert difference(before, node()) is None
    del before["preemption"], before["sweep"]
    assert difference(before, node()) is None
    zero = node("verifier.deeppoly.lower_slope=zero")
    assert "lower_slope='zero'" in str(difference(before, zero))
    assert difference(before, zero).startswith("verifier.deeppoly is DeepPoly(")
    only = "certify.verifiers=[ibp]"
    assert difference(node(only), node(only, "verifier.deeppoly.lower_slope=zero")) is None


def test_the_unfinished_run_that_is_furthest_goes_on() -> None:
    assert place() == Place()
    begun(Path("outputs/2026-01-01/10-00-00-1"), step=9, finished=True)
    begun(Path("outputs/2026-01-01/10-00-00-2"), "seed=1", step=9)
    assert place() == Place(), "one has finished, the other one is another run"
    begun(Path("outputs/2026-01-01/10-00-00-3"), step=None)
    assert place().directory == Path("outputs/2026-01-01/10-00-00-3")
    begun(Path("outputs/2026-01-02/10-00-00-4"), step=5)
    begun(Path("outputs/2026-01-03/10-00-00-5"), step=3)
    begun(Path("outputs/multirun/sweep/0"), step=8)
    assert place() == Place(Path("outputs/2026-01-02/10-00-00-4"))
    assert place("resume=never") == Place()
    with locked(Path("outputs/2026-01-02/10-00-00-4")):
        assert place() == Place(Path("outputs/2026-01-03/10-00-00-5")), "the other one is in use"


def test_runs_are_searched_where_new_ones_go() -> None:
    begun(Path("mine/grad/2026-01-02/10-00"))
    assert place("hydra.run.dir=mine/${method}/${now:%Y-%m-%d}/${now:%H-%M}").directory == Path(
        "mine/grad/2026-01-02/10-00"
    )
    assert place("hydra.run.dir=mine/${now:%Y-%m-%d}") == Place()


def test_a_directory_that_is_named() -> None:
    begun(Path("run"))
    assert place("hydra.run.dir=run") == Place(Path("run"))
    assert place("hydra.run.dir=other") == Place()
    begun(Path("done"), finished=True)
    assert place("hydra.run.dir=done") == Place(Path("done"), finished=True)
    for overrides, message in (
        (("hydra.run.dir=run", "seed=2"), r"run holds another run \(seed is 0 there, 2 here\): choose another"),
        (("hydra.run.dir=run", "resume=never"), "run exists and is not empty: choose another hydra.run.dir"),
    ):
        with pytest.raises(ConfigError, match=message):
            place(*overrides)
    with locked(Path("run")), pytest.raises(ConfigError, match=rf"run is in use by process {os.getpid()} on "):
        place("hydra.run.dir=run")


def test_a_directory_with_something_else_in_it_is_left_alone() -> None:
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("")
    Path("file").write_text("")
    for name in ("full", "file"):
        with pytest.raises(ConfigError, match=f"{name} exists and is not empty"):
            place(f"hydra.run.dir={name}")
    (Path("early") / ".hydra").mkdir(parents=True)
    Path("early/certtrain.log").write_text("")
    assert place("hydra.run.dir=early") == Place(), "a process was killed before its run had begun"


def test_a_run_that_is_named() -> None:
    run = begun(Path("somewhere/run"))
    assert place("resume=somewhere/run") == Place(run)
    assert place("resume=somewhere/run", "hydra.run.dir=somewhere/run") == Place(run)
    last = run / "checkpoints" / "last.ckpt"
    assert place(f"resume={last}") == Place(run.resolve())
    torch.save({"global_step": 3}, run / "checkpoints" / "best.ckpt")
    Path("empty").mkdir()
    for overrides, message in (
        (("resume=nowhere",), "resume=nowhere: there is no such run directory or checkpoint"),
        (("resume=empty",), "no run has begun in empty, which has no config.yaml"),
        ((f"resume={last}", "seed=1"), r"holds another run \(seed is 0 there, 1 here\): fork=.* begins a new run"),
        ((f"resume={last}", "hydra.run.dir=other"), "leave hydra.run.dir=other out"),
        ((f"resume={run}/checkpoints/best.ckpt",), r"is at step 7 by now, not 3: resume=.*run goes on from there"),
    ):
        with pytest.raises(ConfigError, match=message) as refusal:
            place(*overrides)
        assert "\n" not in str(refusal.value)
    with pytest.raises(CerttrainError, match="leave -m out"):
        preflight(Command((*SMALL, f"resume={run}"), True, False))


def test_a_run_that_is_named_goes_on_to_more_epochs_where_that_is_sound() -> None:
    constant = ("scheduler=constant", "trainer.max_epochs=4")
    run = begun(Path("run"), *constant, finished=True)
    more = place("resume=run", "scheduler=constant", "trainer.max_epochs=6")
    assert (more.directory, more.finished) == (run, False)
    assert str(more.note).startswith(
        "trainer.max_epochs 4 -> 6: learning rate, eps and batches of a step do not depend"
    )
    assert place("resume=run", *constant) == Place(run, finished=True)
    assert place(*constant, "trainer.max_epochs=6", "hydra.run.dir=new") == Place()
    begun(Path("limited"), *constant, "trainer.max_steps=7")
    assert place("resume=limited", *constant, "trainer.max_steps=-1").note is not None
    last = Path("patient/checkpoints/last.ckpt")
    begun(Path("patient"), *constant, "stop.patience=2")
    torch.save({"global_step": 7, "callbacks": {"Patience": {"waited": 2}}}, last)
    begun(Path("cosine"), "trainer.max_epochs=4")
    scheduled = ("method=pgpe", "pgpe/sigma_rule=schedule", *constant)
    begun(Path("sigma"), *scheduled, "average=swa")
    six = "trainer.max_epochs=6"
    for overrides, message in (
        (("resume=run", *constant, "trainer.max_epochs=3"), "can only be given more"),
        (("resume=run", *constant, "trainer.max_steps=3"), "max_steps unlimited -> 3: .* can only be given more"),
        (("resume=limited", *constant, six, "trainer.max_steps=7"), "max_steps=7 has ended the run: raise it, too"),
        (("resume=patient", *constant, six, "stop.patience=2"), "stop.patience=2 has ended the run"),
        (
            ("resume=cosine", six),
            r"the learning rate \(CosineAnnealingLR\) was planned .* fork=cosine begins a new",
        ),
        (("resume=sigma", *scheduled, "average=swa", six), r"sigma \(.*\), the average of weights \(Swa\) was planned"),
        (("resume=run", *constant, six, "seed=1"), r"holds another run \(seed is 0 there, 1 here\)"),
        (("hydra.run.dir=run", *constant, six), r"holds another run \(trainer.max_epochs is 4 there, 6 here\)"),
    ):
        with pytest.raises(ConfigError, match=message) as refusal:
            place(*overrides)
        assert "\n" not in str(refusal.value)


def recorded(path: Path, *overrides: str, **told: str) -> Path:
    run = begun(path, *overrides)
    (run / "origin.json").write_text(json.dumps({"command": "", "overrides": [*SMALL, *overrides], **told}))
    return run


def keys(*typed: str) -> list[str]:
    return list(as_command(read_arguments(list(typed))).overrides)


def test_a_run_that_is_named_brings_the_keys_that_it_was_told() -> None:
    recorded(Path("run"), "model.widths=[8, 8]", "trainer.max_epochs=4", "resume=never")
    assert keys("resume=run", "trainer.max_epochs=6") == [
        *(*SMALL, "model.widths=[8, 8]", "resume=run", "trainer.max_epochs=6")
    ]
    last = "resume=run/checkpoints/last.ckpt"
    assert keys(last) == [*SMALL, "model.widths=[8, 8]", "trainer.max_epochs=4", last]
    assert keys("resume=nowhere", "seed=1") == ["resume=nowhere", "seed=1"]
    assert keys("resume=auto", "seed=1") == ["resume=auto", "seed=1"]
    Path("run/origin.json").unlink()
    with pytest.raises(ConfigError, match="run does not say which keys it was told"):
        keys("resume=run")
    Path("run/.hydra/overrides.yaml").write_text("- seed=2\n- relaxation=hbox\n")
    assert keys("resume=run") == ["seed=2", "relaxation=hbox", "resume=run"]


def test_a_fork_has_the_keys_and_the_weights_of_a_run_and_its_own_changes() -> None:
    Path("own").mkdir()
    run = recorded(Path("run"), "model.widths=[8]", "seed=3", config_dir=str(Path("own").resolve()))
    weights = "warm_start.path='" + str((run / "checkpoints" / "last.ckpt").resolve()) + "'"
    forked = keys("fork=run", "seed=4")
    assert forked == [*SMALL, "model.widths=[8]", weights, "fork=run", "seed=4"]
    assert as_command(read_arguments(["fork=run"])).config_dir == Path("own").resolve()
    assert keys(*forked) == [weights, *forked], "as the jobs of a sweep do once more"
    assert keys("fork=run/checkpoints/last.ckpt")[-2:] == [weights, "fork=run/checkpoints/last.ckpt"]
    chosen = keys("fork=run", "model=cnn3", "method=rgs")
    assert chosen == ["relaxation=ibp", "optimizer.lr=1e-5", "seed=3", weights, "fork=run", "model=cnn3", "method=rgs"]
    Path("file.ckpt").write_text("")
    for typed, message in (
        (("fork=nowhere",), "fork=nowhere: there is no such run directory or checkpoint"),
        (("fork=own",), "fork=own: no run has begun in own, which has no config.yaml; warm_start.path takes weights"),
        (("fork=run,own",), "must be one run directory or checkpoint"),
        (("fork=run", "resume=run"), "resume=run goes on with a run, fork=run begins a new one: choose one"),
        (("fork=run", "warm_start.path=file.ckpt"), "warm_start.path: fork=run begins with the weights of that run"),
    ):
        with pytest.raises(ConfigError, match=message) as refusal:
            keys(*typed)
        assert "\n" not in str(refusal.value)


def test_a_run_without_its_checkpoints_being_readable_is_not_begun_anew() -> None:
    run = begun(Path("outputs/2026-01-01/10-00-00-1"))
    (run / "checkpoints" / "last.ckpt").write_bytes(b"")
    with pytest.raises(CerttrainError, match=r"last\.ckpt is no checkpoint that can be read"):
        place()


@pytest.mark.parametrize(
    "path",
    ["run", "my runs/it's", "a=b,c", "x\\'y", "tail\\", "größe", "${now:%Y} $HOME", "[/a]", '"quoted" (1) [2] {3}'],
)
def test_any_path_can_be_handed_to_hydra(path: str) -> None:
    parser = OverridesParser.create()
    (override,) = parser.parse_overrides([f"hydra.run.dir={quoted(path)}"])
    assert override.value() == path.replace("${", "\\${"), "no interpolation"
    assert OmegaConf.create({"path": override.value()}).path == path
    assert parser.parse_override(shlex.split(as_typed("resume", path))[0]).value() == path


def test_one_process_per_directory() -> None:
    run = begun(Path("run"))
    assert holder(run) is None
    with locked(run):
        assert holder(run) == f"process {os.getpid()} on {os.uname().nodename}"
        with pytest.raises(InUse, match=rf"run is in use by process {os.getpid()}"), locked(run):
            pass
    assert holder(run) is None
    assert not (run / "run.lock").exists()
    with locked(run):
        pass


def test_a_killed_process_leaves_no_lock() -> None:
    run = begun(Path("run"))
    code = "import sys, time; from pathlib import Path; from certtrain.lock import locked\n"
    code += "with locked(Path('run')): print('locked', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    assert holder(run) == f"process {process.pid} on {os.uname().nodename}"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    for _ in range(50):
        if holder(run) is None:
            break
        time.sleep(0.1)
    assert (run / "run.lock").exists()
    assert place("hydra.run.dir=run") == Place(run)
    with locked(run):
        assert str(os.getpid()) in str(holder(run))
