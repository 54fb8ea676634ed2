"""The configuration: everything composes, and what is wrong is said in one line."""

from itertools import product
from pathlib import Path

import pytest
import torch

from certtrain._paths import config_dir
from certtrain.bounds import Box, build
from certtrain.certify import RelaxationVerifier
from certtrain.cli.assembly.bounds import make_relaxation, make_verifiers
from certtrain.cli.assembly.data import make_source
from certtrain.cli.assembly.network import make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration import schema
from certtrain.cli.configuration.compose import Command, compose_jobs, with_configured_sweep
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.configuration.sentences import GROUPS
from certtrain.cli.help.page import TOLD, choices, help_page
from certtrain.cli.job.preflight import preflight
from certtrain.cli.rundir.recorded import parse_command
from certtrain.errors import CerttrainError, ConfigError
from certtrain.networks import parameters

# What has to be chosen for there to be a group.
SEARCH = ("hydra/sweeper=optuna",)
BELONGS_TO = {"loss/attack": ("loss=pgd",), "hydra/sweeper/sampler": SEARCH, "hydra/sweeper/pruner": SEARCH}
CHOICES = [(group, name) for group in GROUPS for name in choices(config_dir() / group)]


def config(*overrides: str) -> schema.RunConfig:
    (job,) = compose_jobs(Command(overrides, False, False))
    return parse(plain(job))


# Data that are what is found in them, and what they are where none are there: see tests/data/test_measuring.py.
MEASURED = {("data", "arrays"), ("data", "folder"), ("data", "hub")}
DECLARED = [f"data.source.{fact}" for fact in ("shape=[1,8,8]", "num_classes=10", "mean=[0.5]", "std=[0.3]")]


# Experiments are trained, by tests/cli/commands/test_presets.py.
@pytest.mark.parametrize(("group", "choice"), [found for found in CHOICES if found[0] != "experiment"])
def test_every_choice_of_every_group_composes_and_assembles(group: str, choice: str) -> None:
    declared = DECLARED if (group, choice) in MEASURED else ()
    chosen = config(*BELONGS_TO.get(group, ()), f"{group}={choice}", *declared)
    source = make_source(chosen)
    network, graph = make_network(chosen, source)
    make_training(chosen, network, graph)


def test_a_verifier_takes_options_and_a_second_one_a_name_of_its_own() -> None:
    plainly, flat = make_verifiers(
        config(
            "+relaxation@verifier.flat=deeppoly", "verifier.flat.lower_slope=zero", "certify.verifiers=[deeppoly,flat]"
        )
    )
    assert isinstance(plainly, RelaxationVerifier)
    assert isinstance(flat, RelaxationVerifier)
    assert (plainly.name, plainly.relaxation) == ("deeppoly", build("deeppoly"))
    assert (flat.name, flat.relaxation) == ("flat", build("deeppoly", lower_slope="zero"))


MODELS = list(choices(config_dir() / "model"))
RELAXATIONS = list(choices(config_dir() / "relaxation"))


@pytest.mark.parametrize(("model", "relaxation"), product(MODELS, RELAXATIONS))
def test_every_model_with_every_relaxation(model: str, relaxation: str) -> None:
    """On digits, and narrower where the full width would only cost time."""
    chosen = config(f"model={model}", f"relaxation={relaxation}", "eps=0.01")
    node = dict(chosen.model)
    if "convolutions" in node:
        node["convolutions"] = [[min(c, 4), k, s, p] for c, k, s, p in node["convolutions"]]
    node["widths"] = [min(w, 16) for w in node["widths"]]
    chosen = chosen.model_copy(update={"model": node})
    source = make_source(chosen)
    network, graph = make_network(chosen, source)
    inputs = torch.rand(2, *source.shape)
    bounds = make_relaxation(chosen).bound(graph, parameters(network), Box.linf(inputs, 0.01))
    outputs = network.eval()(inputs)
    assert (bounds.lower <= outputs + 1e-4).all()
    assert (outputs <= bounds.upper + 1e-4).all()


def test_every_group_is_explained_in_the_help_page() -> None:
    page = help_page(1000)
    for group, choice in CHOICES:
        sentence = choices(config_dir() / group)[choice]
        assert sentence.endswith((".", "]")), f"conf/{group}/{choice}.yaml begins with no sentence"
        assert group in page
        assert choice in page
        assert sentence in page or len(choices(config_dir() / group)) > TOLD
    folders = {path.parent.relative_to(config_dir()).as_posix() for path in config_dir().rglob("*.yaml")}
    assert folders == {".", *GROUPS}


@pytest.mark.parametrize("width", [80, 100])
def test_the_help_page_fits_the_terminal(width: int) -> None:
    page, wide = help_page(width), help_page(1000)
    assert max(len(line) for line in page.splitlines() if not line.startswith("  python -m")) <= width
    assert page.split() == wide.split(), "nothing is cut off, no word is broken"


BAD = {
    "pgpe.sgima=1": "unknown key 'pgpe.sgima'; did you mean pgpe.sigma?",
    "+foo=1": "unknown key 'foo'",
    "relaxation=deepoly": "unknown relaxation 'deepoly': possible are .*; did you mean deeppoly?",
    "relaxation.intersect=maybe": "relaxation.intersect must be one of true, false",
    "pgpe.population_size=7": "pgpe.population_size must be even",
    "pgpe.population_size=0": "pgpe.population_size must be greater than or equal to 2",
    "pgpe.sigma=0": "pgpe.sigma must be greater than 0, got 0",
    "pgpe.sigma=-0.1": "pgpe.sigma must be greater than 0",
    "pgpe.sigma=nan": "pgpe.sigma must be a finite number",
    "pgpe.strategy=fastest": "pgpe.strategy must be 'vmap', 'loop' or 'auto'",
    "pgpe.fitness=rank": "pgpe.fitness must be 'raw', 'centered_ranks' or 'normalized'",
    "pgpe.batch_per_generation=0": "pgpe.batch_per_generation must be",
    "pgpe.layer_scale={nope:2.0}": "pgpe.layer_scale: no parameter matches 'nope'; there are ",
    "pgpe.layer_scale={*:0.0}": "pgpe.layer_scale: the factor of '\\*' must be positive",
    "pgpe/sigma_rule=nope": "unknown pgpe/sigma_rule 'nope': possible are constant, learned, schedule",
    "pgpe/sigma_rule=schedule pgpe.sigma_rule.end=0.0": "pgpe.sigma_rule.end must be positive",
    "pgpe/sigma_rule=schedule pgpe.sigma_rule.end=abc": "pgpe.sigma_rule: ",
    "pgpe/sigma_rule=learned pgpe.sigma_rule.max_change=2.0": "max_change must be between 0 and 1",
    "pgpe/sigma_rule=learned pgpe.sigma=1e-6": "begins below pgpe.sigma_rule.minimum",
    "pgpe/sigma_rule=learned pgpe/noise=low_rank": "needs pgpe/noise=gaussian",
    "pgpe/noise=low_rank pgpe.noise.rank=0": "pgpe.noise.rank must be at least 1",
    "method=grad pgpe/noise=low_rank": "unknown group 'pgpe/noise' here: it needs method=pgpe",
    "method=rgs pgpe.sigma=1": "unknown key 'pgpe.sigma' here: it needs method=pgpe",
    "method=rgs rgs.samples=3": "even with rgs.sampling=antithetic",
    "optimizer=clipup optimizer.momentum=1": "optimizer.momentum must be at least 0 and below 1",
    "warm_start.path=/no/such.ckpt": "warm_start.path: no checkpoint at /no/such.ckpt",
    "warm_start.epochs=100": "warm_start.epochs must be less than trainer.max_epochs",
    "method=grad warm_start.epochs=1": "method=grad takes plain gradients anyway",
    "eps=1.5": "eps must be less than or equal to 1",
    "eps=-0.1": "eps must be greater than or equal to 0",
    "eps=big": "eps must be a valid number",
    "relaxation.memory_mb=0.0001": "relaxation.memory_mb=0.0001 is too small: one row",
    "seed=0.5": "seed must be a valid integer",
    "method=grad pgpe.sigma=1": "unknown key 'pgpe.sigma' here: it needs method=pgpe",
    "data=mnist data.path=/no/such/folder": "'/no/such/folder' is no folder",
    "data.path=somewhere": "path",
    "model=cnn3 model.convolutions=[[4,11,1,0]]": "too small for model.convolutions",
    "model.widths=[0]": "model.widths must be positive",
    "optimizer._target_=torch.optim.Adamm": "optimizer._target_: there is no torch.optim.Adamm; did you mean .*Adam",
    "optimizer._target_=torhc.optim.Adam": "optimizer._target_: there is no module 'torhc'",
    "optimizer._target_=Adam": "optimizer._target_: 'Adam' is no dotted name such as torch.optim.Adam",
    "optimizer._target_=torch.optim.lr_scheduler": "torch.optim.lr_scheduler cannot be called",
    "optimizer._target_=os.system": "'os.system' is blocklisted because it allows .* behavior",
    "optimizer.lr=1e38": r"optimizer: a step with optimizer.lr=1e\+38: value cannot be converted",
    "optimizer.lrr=1": "did you mean optimizer.lr. If the optimizer takes it, write \\+optimizer.lrr",
    "lr=1": "unknown key 'lr'; did you mean optimizer.lr?",
    "sigma=1": "did you mean pgpe.sigma or rgs.sigma?",
    "epochs=1": "did you mean trainer.max_epochs or warm_start.epochs?",
    "relaxtion=ibp": "unknown key 'relaxtion'; did you mean relaxation\\?",
    "relaxation=nope": "possible are alpha_crown, crown_ibp, deeppoly, hbox, ibp, intersection, zonotope$",
    "relaxation=crown": "did you mean crown_ibp?",
    "relaxation=IBP": "did you mean ibp?",
    "relaxation.sparse=1": "unknown key 'relaxation.sparse': --cfg job shows all",
    "pgpe.noise=low_rank": "pgpe/noise is a group, whose choice is written pgpe/noise=low_rank",
    "logger=null": "'logger=null': a group is given a choice: logger=csv.local.tensorboard.wandb",
    "scheduler=null": "a group is given a choice: scheduler=constant.cosine.cyclic.multistep.one_cycle",
    "certify=3": r"a group is given a choice: certify=complete\|default",
    "certify=false": r"certify=complete\|default; certify.enabled=false certifies nothing$",
    "certify=off": "unknown certify 'off': possible are complete, default; certify.enabled=false certifies nothing$",
    "pgpe=null": "'pgpe=null': set its keys, as in pgpe.key=value",
    "model=[1]": "a group is given a choice: model=cnn3.cnn5",
    "pgpe=[1]": "'pgpe=.1.': set its keys, as in pgpe.key=value",
    "pgpe=foo": "pgpe has no choices: set its keys, as in pgpe.key=value",
    "pgpe={sgima:1}": "unknown key 'pgpe.sgima'; did you mean pgpe.sigma?",
    "scheduler={a:1}": "unknown key 'scheduler.a'; .*If the scheduler takes it, write \\+scheduler.a=",
    "hydra/sweeper=moon": "unknown hydra/sweeper 'moon': possible are optuna",
    "=3": "'=3': the key is missing",
    "a..b=1": "'a..b' is no key",
    "model.widths=[32,,16]": "the value is no list such as",
    "warm_start.path=runs/epoch=3.ckpt": "quote .*, as in 'warm_start.path=\"runs/epoch=3.ckpt\"'",
    "warm_start.path=/etc/passwd": "/etc/passwd is no checkpoint that can be read: it is of another kind, or cut off",
    "+model.num_classes=7": "model.num_classes is decided by the rest of the configuration",
    "+eps=3": "the key exists: leave the . out",
    "eps=${nope}": "eps: there is no key 'nope'",
    "hydra.run.dir=${nope}": "hydra.run.dir: there is no key 'nope'",
    "clip=[0]": "clip must have at least 2 entries, got",
    "certify.attack=null": "certify.attack must be a node with keys of its own, got None",
    "scheduler=multistep scheduler.milestones=abc": "fractions of the run, between 0 and 1, got abc",
    "model=cnn3 model.norm=batch model.widths=[8] data.batch_size=1": "batch norm .* one value per channel",
    "model=cnn3 model.norm=batch model.widths=[8] pgpe.batch_per_generation=1": "sees one value per channel",
    "optimizer=sgd +optimizer.foo=1": "optimizer: .*foo",
    "+pgpe.noise.foo=1": "pgpe.noise: .*unexpected keyword argument 'foo'",
    "pgpe.noise._target_=collections.Counter": "pgpe.noise: ",
    "pgpe.noise._target_=builtins.range": "pgpe.noise: ",
    "pgpe.noise._target_=builtins.complex": "builtins.complex makes a complex, no certtrain.gradients.noise.Noise",
    "pgpe.sigma_rule._target_=torch.nn.ReLU": "ReLU makes a ReLU, no certtrain.gradients.sigma.SigmaRule",
    "model._target_=builtins.dict": "model._target_: builtins.dict makes a dict, no torch.nn.modules.module.Module",
    "loss._target_=builtins.dict": "loss._target_: builtins.dict makes a dict, no certtrain.losses.base.Loss",
    "data.source._target_=builtins.dict": "data.source._target_: builtins.dict makes a dict, no certtrain.data.source.",
    "certify.verifiers=[nope]": "certify.verifiers: unknown verifier 'nope': one of ibp, .*, or one of your own",
    "certify.verifiers=[ibp,depoly]": "unknown verifier 'depoly': .*; did you mean deeppoly\\?$",
    "certify.verifiers=[crown]": "unknown verifier 'crown': .*; did you mean crown_ibp\\?$",
    "certify.verifiers=[ipb]": "unknown verifier 'ipb': .*; did you mean ibp\\?$",
    "certify.verifiers=[]": "certify.verifiers: must be a list of verifiers such as .*, at least one, got \\[\\]",
    "certify.verifiers=null": "certify.verifiers: must be a list of verifiers .*certify.enabled=false",
    "certify.verifiers=ibp": "certify.verifiers: must be a list of verifiers .* got 'ibp'",
    "certify.verifiers=[1]": "certify.verifiers: must be a list of verifiers",
    "certify.limit=0": "certify.limit must be",
    "trainer.devices=0": "trainer.devices must be greater than or equal to 1",
    "trainer=ddp trainer.num_nodes=2": "start the command on every node, with torchrun or srun",
    "trainer=ddp pgpe.groups=2": "pgpe: groups is for parallel=hybrid",
    "trainer=ddp pgpe.parallel=hybrid": "pgpe: groups is for parallel=hybrid, which needs it",
    "trainer=ddp trainer.devices=4 pgpe.parallel=hybrid pgpe.groups=3": "pgpe.groups must divide the number of ranks",
    "trainer=ddp trainer.devices=3 pgpe.population_size=4": "2 antithetic pairs, too few for 3 ranks",
    "trainer=ddp trainer.devices=4 pgpe.parallel=hybrid pgpe.groups=4 pgpe.population_size=4": "too few for 4 groups",
    "clip=[1,0]": "clip must be",
    "clip=[0,0.5]": "contain all pixels",
    "eps=true": "eps must be a valid number",
    "eps=2/0": "eps must be a valid number",
    "method=rgs rgs.sigma=1/100": "a fraction is not computed: write 0.01",
    "trainer.max_steps=0": "max_steps must be at least 1",
    "trainer.max_steps=-2": "max_steps must be at least 1, or -1 for no limit, got -2",
    "method=rgs ~rgs": "method rgs and the node rgs belong together",
    "+rgs={sigma:0.1,samples:2,sampling:independent,strategy:loop,member_chunk:1}": "choose both with method=rgs",
    "pgpe.layer_scale={": "the value is no dictionary such as {a:1,b:2}",
    "loss.l1=abc": "loss",
    "scheduler.T_max=abc": "scheduler: ",
    "scheduler=multistep scheduler.milestones=[5]": "fractions of the run",
    "optimizer._target_=torch.optim.LBFGS": "optimizer: .*closure",
    "optimizer.weight_decay=0.1": "write \\+optimizer.weight_decay",
    "certify.verifiers=[ibp,ibp]": "certify.verifiers: two verifiers are named 'ibp'",
    "verifier.deeppoly.lower_slope=flat": "verifier.deeppoly: relaxation.lower_slope must be one of .*got 'flat'",
    "verifier.deeppoly.lower_slop=zero": "unknown key .*did you mean verifier.deeppoly.lower_slope",
    "verifier.hbox.memory_mb=0": "verifier.hbox: relaxation.memory_mb must be a positive number",
    "relaxation@verifier.ibp=deeppoly": "verifier.ibp: what DeepPoly.* would be reported as ibp: choose another",
    "verifier.milp.relaxation=ibq": "verifier.milp: unknown relaxation 'ibq' for backend native: one of ibp",
    "+verifier.milp.backend=native": "verifier.milp: verifier milp has no option 'backend': relaxation",
    "verifier.hbox.backend=nope": "verifier.hbox: relaxation.backend must be one of",
    "+verifier.hbox.relaxation=ibp": "verifier.hbox: relaxation hbox has no option 'relaxation'",
    "relaxation@verifier.ibp=zonotope certify.verifiers=[hbox]": "verifier.ibp: what Zonotope",
    "relaxation=intersection relaxation.parts=5": "relaxation.parts must be a list",
    "model.widths=5": "model.widths must be positive whole numbers",
    "pgpe.sigma=0.1,0.2": "add -m",
    "checkpoint.every_generations=0": "checkpoint.every_generations must be greater than or equal to 1",
    "preemption.signals=[SIGKILL]": "preemption.signals.0 must be 'SIGTERM', 'SIGUSR1'",
    "pgpe.max_dropped=2": "pgpe.max_dropped must be less than or equal to 1",
    "resume=no/such/run": "resume=no/such/run: there is no such run directory or checkpoint",
    "optimizer.clip_norm=-1": "optimizer.clip_norm must be greater than 0",
    "sweep.fail_fast=1": "sweep.fail_fast must be a valid boolean",
    "hydra/launcher=moon": "unknown hydra/launcher 'moon': possible are basic, joblib, submitit",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_explained_in_one_line(command: str) -> None:
    with pytest.raises(CerttrainError, match=BAD[command]) as caught:
        preflight(Command(tuple(command.split()), False, False))
    assert "\n" not in str(caught.value)


def test_a_key_that_a_sweep_needs_and_lacks_is_explained_in_one_line() -> None:
    with pytest.raises(ConfigError, match="^missing key 'resume'$"):
        preflight(Command(("~resume", "seed=0,1"), True, False))


def test_a_network_with_too_few_outputs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from torch import nn\ndef make(**given): return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
    (tmp_path / "seven.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CerttrainError, match="the network has 7 outputs, data=digits has 10 classes"):
        preflight(Command(("model._target_=seven.make",), False, False))


def test_a_folder_of_own_choices_is_checked_like_the_rest(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\neps: 3.0\n", encoding="utf-8")
    command = parse_command([f"--config-dir={tmp_path}", "experiment=mine"])
    with pytest.raises(CerttrainError, match="eps must be less than or equal to 1"):
        preflight(command)
    with pytest.raises(CerttrainError, match="use --config-dir"):
        parse_command(["--config-name=other"])


def test_a_sweep_is_checked_whole_before_its_first_job() -> None:
    with pytest.raises(CerttrainError, match="unknown verifier 'nope'"):
        preflight(Command(("certify.verifiers=[ibp],[nope]",), True, False))
    with pytest.raises(CerttrainError, match="pgpe.sigma must be greater than 0"):
        preflight(Command(("pgpe.sigma=0.1,0.2,0", "relaxation=ibp,deeppoly"), True, False))


def test_every_radius_of_a_sweep_is_rehearsed() -> None:
    """At eps 0 no bound is computed, and nothing is found that only bounds can find."""
    with pytest.raises(CerttrainError, match="is too small: one row"):
        preflight(Command(("eps=0,0.1", "relaxation.memory_mb=0.0001"), True, False))


def test_a_sweep_is_run_by_launchers_that_start_fresh_processes() -> None:
    refused = {
        "hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher": "are run by basic, joblib",
        "hydra/launcher=joblib hydra.launcher.n_jobs=0": "hydra.launcher.n_jobs must be",
        "hydra/launcher=submitit hydra.launcher.cluster=moon": "hydra.launcher.cluster must be",
    }
    for overrides, message in refused.items():
        with pytest.raises(CerttrainError, match=message):
            preflight(Command(("seed=0,1", *overrides.split()), True, False))


def test_a_sweep_may_stand_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {seed: '1,2', eps: '0.01'}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    command = with_configured_sweep(parse_command([f"--config-dir={tmp_path}", "experiment=mine", "seed=3,4"]))
    assert command.multirun
    jobs = [parse(plain(job)) for job in compose_jobs(command)]
    assert [(job.seed, job.eps) for job in jobs] == [(3, 0.01), (4, 0.01)]
    assert not with_configured_sweep(Command(("seed=1",), False, False)).multirun


def test_values_that_a_sweeper_will_choose_are_checked_at_their_ends() -> None:
    def seen(*overrides: str) -> list[tuple[float, int]]:
        jobs = compose_jobs(Command((*overrides, "hydra.sweeper={_target_:another.Sweeper}"), True, False))
        return [(job.eps, job.seed) for job in jobs]

    assert seen("eps=interval(0.1,0.3)", "seed=choice(1,2)") == [(0.1, 1), (0.3, 1), (0.1, 2)]
    with pytest.raises(CerttrainError, match="only lists of values can be swept"):
        list(compose_jobs(Command(("eps=interval(0.1,0.3)",), True, False)))


def test_a_sweep_expands_to_all_combinations() -> None:
    overrides = ("relaxation=ibp,hbox,crown_ibp,deeppoly", "pgpe.sigma=1e-3,1e-2", "pgpe.population_size=64,128")
    jobs = [parse(plain(job)) for job in compose_jobs(Command(overrides, True, False))]
    assert len(jobs) == 16
    assert len({(j.relaxation.name, j.pgpe.sigma, j.pgpe.population_size) for j in jobs}) == 16
