"""Who bounds and who attacks: the relaxation that trains, the one that validates, and what certifies."""

from __future__ import annotations

from certtrain.bounds import Relaxation, build, relaxations
from certtrain.certify import Attack, AttackEnsemble, Falsifier
from certtrain.certify.arithmetic import arithmetic_named
from certtrain.certify.verifiers import Verifier, choose
from certtrain.cli.configuration.schema import RunConfig
from certtrain.errors import ConfigError
from certtrain.losses import Loss
from certtrain.spelling import did_you_mean
from certtrain.training.objective import Validation

# By its name among the others, the relaxation that trains.
TRAINING = "training"
# Relaxations that certify next to nothing of what other losses than those of bounds have trained; and one that costs
# little more, and certifies much of it.
LOOSE, TIGHTER = ("ibp", "hbox"), "crown_ibp"


def make_relaxation(config: RunConfig) -> Relaxation:
    """The relaxation that trains."""
    return build(config.relaxation.name, config.relaxation.backend, **config.relaxation.options)


def make_validation(config: RunConfig, loss: Loss) -> Validation:
    """By which bounds validation certifies.

    Raises:
        ConfigError: If there is no such relaxation.
    """
    own, asked, images = config.relaxation.name, config.validation.relaxation, config.validation.images
    if asked is None:
        asked = TIGHTER if own in LOOSE and not loss.certifies else TRAINING
    if asked in (TRAINING, own):
        return Validation(own)
    if asked not in relaxations():
        legal = (TRAINING, *relaxations())
        raise ConfigError(
            f"validation.relaxation must be null or one of {', '.join(legal)}, got '{asked}'"
            + did_you_mean(asked, legal)
        )
    return Validation(asked, build(asked), images)


def make_verifiers(config: RunConfig) -> tuple[Verifier, ...]:
    """What certifies, in order.

    Raises:
        ConfigError: One line that names the key.
    """
    given = {name: {"name": node.name, **node.options} for name, node in config.verifier.items()}
    return choose(config.certify.verifiers, given, arithmetic_named(config.certify.arithmetic))


def make_attack(config: RunConfig) -> Falsifier:
    """What looks for counterexamples."""
    options = config.certify.attack
    if options.name == "ensemble":
        assert options.queries is not None
        return AttackEnsemble(options.steps, options.restarts, options.queries, config.seed)
    return Attack(options.steps, options.restarts, seed=config.seed)
