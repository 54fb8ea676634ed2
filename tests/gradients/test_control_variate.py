"""Control variates and shrinkage: less noise, no bias; and bias only where it pays."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.gradients import PGPE, Backprop, Layout, Ranks
from certtrain.gradients.adaptive import AdaptiveGradient
from certtrain.gradients.base import ALONE, LossFunction, State
from certtrain.gradients.control_variate import OWN_PAIRS, ControlVariate, Draw, joined, mean_and_noise
from certtrain.gradients.layer_scale import LayerScale
from certtrain.gradients.pairs import Blocks
from certtrain.gradients.plain_gradient import PlainGradient
from certtrain.gradients.registry import make_control_variate
from certtrain.gradients.shrinkage import SHRINKAGES, james_stein, james_stein_layers
from certtrain.gradients.sigma import Learned, Scheduled
from certtrain.gradients.smoothed_gradient import SmoothedGradient
from certtrain.networks.graph import Params
from certtrain.testing.ranks import on_threads

# A generation of many pairs takes hardly longer than one of few.
SIGMA, PAIRS, MANY = 0.3, 8, 64
SLOPE = torch.linspace(-1, 2, 12, dtype=torch.float64)


def centre() -> Params:
    return {"w": torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4), "b": torch.full((4,), 0.2).double()}


def flat(params: Params) -> Tensor:
    return torch.cat([params["w"].flatten(), params["b"]])


def linear(params: Params) -> Tensor:
    return flat(params) @ SLOPE


def cubic(params: Params) -> Tensor:
    return flat(params).pow(3).sum()


def step(params: Params) -> Tensor:
    """A jump, which no gradient sees."""
    total = flat(params).sum()
    return (total > 0.9).double() + 0 * total


def estimates(
    loss: LossFunction,
    control: ControlVariate | None,
    count: int,
    shrinkage: str = "none",
    pairs: int = PAIRS,
    strategy: str = "loop",
) -> Tensor:
    """[count, 12]."""
    made = PGPE(SIGMA, 2 * pairs, control_variate=control, shrinkage=shrinkage, strategy=strategy)
    return torch.stack([flat(made.estimate(loss, centre(), g).gradient) for g in range(count)])


@dataclass(frozen=True)
class Fixed(ControlVariate):
    """A guess that knows nothing of the loss."""

    value: Params
    drawn: list[Params] = field(default_factory=list)

    def gradients(self, state: State) -> int:
        return 0

    def parts(self, loss: LossFunction, params: Params, draw: Draw, state: State, ranks: Ranks = ALONE) -> list[Params]:
        self.drawn.extend(draw(range(OWN_PAIRS, OWN_PAIRS + 2)))
        return [self.value]


def test_of_a_linear_loss_the_gradient_is_exact() -> None:
    """Nothing is left to the population, whatever its noise."""
    exact = flat(Backprop().estimate(linear, centre(), 0).gradient)
    for found in estimates(linear, PlainGradient(), 3):
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


def gradient_of_smoothed_cubic() -> Tensor:
    return 3 * flat(centre()).square() + 3 * SIGMA**2


def gradient_of_smoothed_step() -> Tensor:
    """Of P(N(s, 12 σ²) > 0.9), s the sum of all: the same in every direction."""
    spread = SIGMA * math.sqrt(12)
    distance = (float(flat(centre()).sum()) - 0.9) / spread
    return torch.full((12,), math.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi) / spread, dtype=torch.float64)


GUESSES: dict[str, ControlVariate] = {
    "gradient": PlainGradient(),
    "rgs": SmoothedGradient(4),
    "wrong": Fixed({"w": torch.ones(2, 4).double(), "b": -torch.ones(4).double()}),
}


@pytest.mark.parametrize("name", GUESSES)
@pytest.mark.parametrize(("loss", "exact"), [(cubic, gradient_of_smoothed_cubic), (step, gradient_of_smoothed_step)])
def test_no_guess_brings_bias(name: str, loss: LossFunction, exact: Callable[[], Tensor]) -> None:
    found = estimates(loss, GUESSES[name], 200, pairs=MANY, strategy="vmap")
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - exact()).abs() < 4.5 * error).all()
    assert error.norm() < 0.35 * exact().norm(), "too noisy to say anything"


def test_what_is_left_of_the_noise_is_that_of_the_part_that_the_guess_misses() -> None:
    """Of a linear loss with slope a, exactly (d+1)/n |a - h|²: fourth moments of the normal distribution."""
    for part in (0.0, 0.5, 0.9):
        guess = Fixed({"w": part * SLOPE[:8].reshape(2, 4), "b": part * SLOPE[8:]})
        squares = (estimates(linear, guess, 150, pairs=MANY, strategy="vmap") - SLOPE).square().sum(1)
        expected = (len(SLOPE) + 1) / MANY * float(((1 - part) * SLOPE).square().sum())
        assert float(squares.mean()) == pytest.approx(expected, rel=0.15)


def test_a_guess_draws_noise_of_its_own_with_the_same_distribution() -> None:
    """Of this generation's sigma, and with the factors of layers."""
    guess = Fixed({name: torch.zeros_like(p) for name, p in centre().items()})
    rule, factors = Scheduled(end=0.1, generations=11), {"b": 0.25}
    made = PGPE(SIGMA, 4, control_variate=guess, sigma_rule=rule, layer_scale=LayerScale(factors))
    made.estimate(cubic, centre(), 10)
    (drawn,) = guess.drawn
    noise = made.noise(made.seed, 0.1)
    (own,) = Blocks(noise, factors, centre(), 10, range(OWN_PAIRS, OWN_PAIRS + 2))
    (population,) = Blocks(noise, factors, centre(), 10, range(2))
    for name in drawn:
        torch.testing.assert_close(drawn[name], own[name])
        assert not torch.isclose(drawn[name], population[name]).any()


def test_a_guess_that_is_no_number_is_none() -> None:
    """Losses are finite, their gradient at the centre is not."""

    def cusp(params: Params) -> Tensor:
        return (flat(params) - flat(centre())).abs().sqrt().sum() + linear(params)

    assert not flat(Backprop().estimate(cusp, centre(), 0).gradient).isfinite().all()
    for shrinkage in ("none", "james_stein"):
        assert torch.equal(estimates(cusp, PlainGradient(), 2, shrinkage), estimates(cusp, None, 2))
    told = PGPE(SIGMA, 4, control_variate=PlainGradient()).estimate(cusp, centre(), 0).statistics
    assert told["control_variate/dropped"] == 1.0


def test_without_a_guess_nothing_is_shrunk() -> None:
    assert torch.equal(estimates(cubic, None, 2, "james_stein"), estimates(cubic, None, 2))


def test_a_loss_without_derivatives_is_told_what_to_do() -> None:
    with pytest.raises(ConfigError, match="pgpe.control_variate=none needs its values only"):
        estimates(lambda p: cubic(p).detach(), PlainGradient(), 1)


def test_a_learned_sigma_does_not_depend_on_the_guess() -> None:
    """Its slope is made of the means of pairs, of which a guess says nothing."""
    states = [
        PGPE(SIGMA, 2 * PAIRS, control_variate=control, sigma_rule=Learned()).estimate(cubic, centre(), 0).state
        for control in (None, PlainGradient())
    ]
    assert states[0] == states[1]


def test_rgs_leaves_out_what_is_not_finite() -> None:
    def half(params: Params) -> Tensor:
        return linear(params) * (1.0 if flat(params)[0] > -1 else float("nan"))

    noise = PGPE(SIGMA, 2).noise(0, SIGMA)

    def guess(loss: LossFunction) -> Tensor:
        draw = lambda pairs: Blocks(noise, {}, centre(), 0, pairs)  # noqa: E731
        return flat(mean_and_noise(joined(SmoothedGradient(16).parts(loss, centre(), draw, {})))[0])

    torch.testing.assert_close(guess(half), SLOPE)
    assert guess(lambda p: linear(p) * float("nan")).isnan().all()


def test_halves_tell_how_noisy_their_mean_is() -> None:
    """Of a cubic, whose gradient varies with the noise: against the spread of guesses with noise of their own."""
    noise, control = PGPE(SIGMA, 2).noise(0, SIGMA), SmoothedGradient(8)
    found = []
    for generation in range(400):
        draw = lambda pairs, g=generation: Blocks(noise, {}, centre(), g, pairs)  # noqa: E731
        found.append(mean_and_noise(joined(control.parts(cubic, centre(), draw, {}))))
    spread = torch.stack([flat(guess) for guess, _ in found]).var(0).sum()
    assert sum(told for _, told in found) / len(found) == pytest.approx(float(spread), rel=0.2)
    assert math.isnan(mean_and_noise(joined(SmoothedGradient(2).parts(cubic, centre(), draw, {})))[1])


def test_a_sample_that_is_not_finite_on_the_images_of_one_rank_is_left_out_on_all() -> None:
    """The values of all samples are finite, some gradients of the first image are not."""

    def on_images(ranks: Ranks) -> LossFunction:
        own = ranks.shard(4)

        def loss(params: Params) -> Tensor:
            total = sum(((flat(params) + image).pow(3).sum() for image in own), flat(params).sum() * 0)
            first = flat(params)[0] + 1  # half of the samples are below: a value, whose derivative is none
            return total + torch.where(first > 0, first.sqrt(), 0 * first) if 0 in own else total

        return loss

    for control in (SmoothedGradient(8), AdaptiveGradient()):
        made = PGPE(SIGMA, 8, control_variate=control)
        alone = made.estimate(on_images(ALONE), centre(), 3)
        assert alone.statistics["control_variate/dropped"] == 0.0
        for found in on_threads(
            Layout.hybrid(4, 2), lambda ranks, made=made: made.estimate(on_images(ranks), centre(), 3, ranks=ranks)
        ):
            torch.testing.assert_close(found.gradient, alone.gradient)
            torch.testing.assert_close(found.state, alone.state)


def kept(square: float, trace: float) -> float:
    return james_stein({"w": square}, {"w": trace})["w"]


def test_shrinkage_is_never_worse_than_all_or_nothing() -> None:
    """Means of n normal vectors in 50 dimensions, with signals from none to strong."""
    generator = torch.Generator().manual_seed(0)
    for signal in (0.0, 0.1, 0.3, 1.0, 3.0):
        truth = torch.full((50,), signal / math.sqrt(50), dtype=torch.float64)
        parts = truth + torch.randn(400, 10, 50, generator=generator, dtype=torch.float64) * 0.5
        means = parts.mean(1)
        squares = means.square().sum(1)
        traces = (parts.square().sum(2).mean(1) - squares) / 9
        factors = torch.tensor([kept(float(s), float(t)) for s, t in zip(squares, traces, strict=True)])
        shrunk = (factors[:, None] * means - truth).square().sum(1).mean()
        whole, nothing = (means - truth).square().sum(1).mean(), truth.square().sum()
        assert shrunk <= whole
        assert shrunk <= nothing + 0.1 * whole


def test_how_much_is_kept() -> None:
    assert kept(4.0, math.nan) == 0.0
    assert kept(4.0, 0.0) == 1.0
    assert kept(4.0, 8.0) == 0.0
    assert kept(0.0, 0.0) == 0.0
    assert kept(4.0, 1.0) == 0.75
    squares, traces = {"a": 4.0, "b": 4.0, "c": 0.0}, {"a": 1.0, "b": 4.0, "c": 0.0}
    assert james_stein(squares, traces) == dict.fromkeys(squares, 3 / 8)
    assert james_stein_layers(squares, traces) == {"a": 0.75, "b": 0.0, "c": 0.0}


def test_shrinkage_pays_where_a_population_is_small() -> None:
    """Eight pairs say little of twelve weights that a gradient does not say better."""
    errors = {
        shrinkage: (estimates(cubic, PlainGradient(), 300, shrinkage) - gradient_of_smoothed_cubic()).square().sum()
        for shrinkage in SHRINKAGES
    }
    assert errors["james_stein"] < errors["none"]
    assert errors["james_stein_layers"] < errors["none"]


def test_a_layer_whose_gradient_is_known_leaves_the_other_its_correction() -> None:
    """A guess that is right in one layer and wrong in the other, each with a factor of its own."""
    loss: LossFunction = lambda params: 1000 * (params["w"].sum() + params["b"].sum())  # noqa: E731
    guess = Fixed({"w": torch.full((2, 4), 1000.0).double(), "b": torch.zeros(4).double()})
    made = PGPE(SIGMA, 400, control_variate=guess, shrinkage="james_stein_layers")
    found = made.estimate(loss, centre(), 0)
    correction = {name: g - guess.value[name] for name, g in found.gradient.items()}
    whole = replace(made, shrinkage="none").estimate(loss, centre(), 0).gradient
    factors = {name: correction[name] / (whole[name] - guess.value[name]) for name in correction}
    assert float(factors["b"].max()) > 0.9
    assert float(factors["w"].max()) < 0.2
    torch.testing.assert_close(factors["w"], factors["w"].flatten()[0].expand(2, 4))


def test_its_quality_is_told() -> None:
    def told(loss: LossFunction, control: ControlVariate) -> dict[str, float]:
        made = PGPE(SIGMA, 400, control_variate=control, shrinkage="james_stein")
        return made.estimate(loss, centre(), 0).statistics

    good = told(linear, PlainGradient())
    assert good["control_variate/missed"] == pytest.approx(0.0, abs=1e-9)
    assert good["control_variate/dropped"] == 0.0
    assert good["control_variate/cosine"] == pytest.approx(1.0)
    half = told(linear, Fixed({"w": 0.5 * SLOPE[:8].reshape(2, 4), "b": 0.5 * SLOPE[8:]}))
    assert half["control_variate/missed"] / half["control_variate/smoothed"] == pytest.approx(0.25, abs=0.05)
    assert 0.9 < half["shrinkage/kept"] < 1.0
    assert "control_variate/cosine" not in PGPE(SIGMA, 4).estimate(linear, centre(), 0).statistics


def test_names() -> None:
    assert make_control_variate("none", None) is None
    assert make_control_variate("gradient", None) == PlainGradient()
    assert make_control_variate("rgs", None) == SmoothedGradient(8)
    assert make_control_variate("rgs", 4) == SmoothedGradient(4)
    assert make_control_variate("rgs", "auto") == AdaptiveGradient()
    for name, samples, message in (
        ("grad", None, "must be one of none, gradient, rgs, got grad; did you mean gradient\\?"),
        ("gradient", 4, "pgpe.control_samples is for pgpe.control_variate=rgs"),
        ("none", "auto", "pgpe.control_samples is for pgpe.control_variate=rgs, got auto with none"),
        ("rgs", 3, "pgpe.control_samples must be even"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_control_variate(name, samples)
    with pytest.raises(ConfigError, match="fitness=normalized needs pgpe.control_variate=none"):
        PGPE(0.1, 4, fitness="normalized", control_variate=PlainGradient())
    with pytest.raises(ConfigError, match="must be one of none, james_stein, james_stein_layers, got some"):
        PGPE(0.1, 4, shrinkage="some")
