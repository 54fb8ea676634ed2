"""Every loss that the configuration can make."""

from dataclasses import replace
from functools import cache
from typing import Any

from certtrain._paths import config_dir
from certtrain.cli.assembly.parts import instantiate
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.help.page import choices
from certtrain.losses import AdCert, Distillation, FeatureDistillation, Loss
from certtrain.networks import Params

TAUGHT = (AdCert, Distillation, FeatureDistillation)
NAMES = list(choices(config_dir() / "loss"))
# With derivatives as published, which are not those of its value, and with those of its value.
VARIANTS = {
    "taps_exact": ("loss=taps", "loss.connector=1.0"),
    "staps_exact": ("loss=staps", "loss.connector=1.0"),
    "distillation_of_sabr": ("loss=distillation", "loss@loss.base=sabr"),
    "sabr_restarts": ("loss=sabr", "loss.attack.restarts=2", "loss.attack.step_size=0.5"),
    "feature_distillation_of_staps": ("loss=feature_distillation", "loss@loss.base=staps", "loss.layer=0"),
    "optimised_slopes_to_intervals": ("loss=optimised_slopes", "loss.beta_end=0.0", "relaxation=crown_ibp"),
    "mtl_ibp_wide": ("loss=mtl_ibp", "loss.attack.eps_factor=2.1", "loss.alpha=0.5", "loss.l1=1e-3"),
}
# What else than the defaults a loss needs.
NEEDS = {"optimised_slopes": ("relaxation=crown_ibp",)}
COMMANDS = {name: (f"loss={name}", *NEEDS.get(name, ())) for name in NAMES} | VARIANTS


@cache
def _made(name: str) -> Loss:
    (job,) = compose_jobs(Command(COMMANDS[name], False, False))
    made = instantiate(parse(plain(job)).loss, "loss")
    assert isinstance(made, Loss)
    return made


def loss(name: str, teacher: Params | None = None, **options: Any) -> Loss:
    """As a run makes it; what distils, from a teacher that is given."""
    made = replace(_made(name), **options)
    return replace(made, teacher=teacher) if isinstance(made, TAUGHT) else made
