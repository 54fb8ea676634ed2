"""Every gradient estimator that the configuration can make."""

from functools import cache

from certtrain._paths import config_dir
from certtrain.cli.assembly.estimator import make_estimator
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.help.page import choices
from certtrain.gradients import GradientEstimator
from certtrain.gradients.registry import CONTROL_VARIATES

# The published estimator: the default adds a control variate and shrinkage.
PLAIN = ["method=pgpe", "pgpe.control_variate=none", "pgpe.shrinkage=none"]
METHODS = {method: [f"method={method}"] for method in choices(config_dir() / "method")}
PARTS = {
    f"{group}={choice}": [*PLAIN, f"pgpe/{group}={choice}"]
    for group in ("sigma_rule", "noise")
    for choice in choices(config_dir() / "pgpe" / group)
}
GUESSES = {
    f"control_variate={name}": ["method=pgpe", "pgpe.shrinkage=none", f"pgpe.control_variate={name}"]
    for name in CONTROL_VARIATES
}
OPTIONS = {
    "ranks": [*PLAIN, "pgpe.fitness=centered_ranks"],
    "normalized": [*PLAIN, "pgpe.fitness=normalized"],
    "layer_scale": [*PLAIN, "pgpe.layer_scale={w: 0.5}"],
    "plain": PLAIN,
    # Of rank 1: two factors of a higher rank would not make the checks' matrix smaller, whose noise is plain then.
    "control_variate_of_low_rank": ["method=pgpe", "pgpe.shrinkage=none", "pgpe/noise=low_rank", "pgpe.noise.rank=1"],
    "control_variate_of_layers": ["method=pgpe", "pgpe.shrinkage=none", "pgpe.layer_scale={w: 0.5}"],
    "control_variate_auto": [
        "method=pgpe",
        "pgpe.shrinkage=none",
        "pgpe.control_variate=rgs",
        "pgpe.control_samples=auto",
    ],
    "rgs_independent": ["method=rgs", "rgs.sampling=independent"],
    "rgs_vmap": ["method=rgs", "rgs.strategy=vmap"],
}
COMMANDS = METHODS | PARTS | GUESSES | OPTIONS


@cache
def estimator(name: str, *overrides: str) -> GradientEstimator:
    """As a run makes it: 20 members with sigma 0.05, or 8 samples with sigma 0.01."""
    command = [*COMMANDS[name], *overrides]
    if "method=pgpe" in command:
        command.append("pgpe.population_size=20")
    (job,) = compose_jobs(Command(tuple(command), False, False))
    return make_estimator(parse(plain(job))).decided("vmap").planned(10)
