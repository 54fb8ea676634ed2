"""The parts of PGPE: fitness shaping, sigma rules, low-rank noise, factors per layer."""

import math
from functools import partial

import pytest
import torch

from certtrain.errors import ConfigError
from certtrain.gradients import PGPE, GaussianNoise, LayerScale, LowRankNoise
from certtrain.gradients import pairs as pairs_module
from certtrain.gradients.fitness import shape
from certtrain.gradients.plain_gradient import PlainGradient
from certtrain.gradients.sigma import Learned, Scheduled
from certtrain.gradients.statistics import signal_to_noise, trace_of_covariance

EVERY = torch.tensor([True, True, True])
LOSSES = torch.tensor([[3.0, 1.0, 5.0], [1.0, 4.0, 9.0]])


def bowl(params: dict[str, torch.Tensor], curvature: float = 1.0) -> torch.Tensor:
    return 0.5 * curvature * params["x"].square().sum()


# --- fitness


def test_ranks_by_hand() -> None:
    """Sorted 1 1 3 4 5 9: the two ones share rank (0 + 1)/2; rank r of 5 becomes r/5 - 1/2."""
    expected = torch.tensor([[2 / 5, 0.5 / 5, 4 / 5], [0.5 / 5, 3 / 5, 5 / 5]]) - 0.5
    torch.testing.assert_close(shape("centered_ranks", LOSSES, EVERY), expected)


def test_ranks_see_order_only() -> None:
    torch.testing.assert_close(
        shape("centered_ranks", LOSSES.exp(), EVERY), shape("centered_ranks", LOSSES, EVERY), rtol=0, atol=0
    )


def test_normalized_losses() -> None:
    shaped = shape("normalized", LOSSES, EVERY)
    assert float(shaped.mean()) == pytest.approx(0, abs=1e-6)
    assert float(shaped.std(correction=0)) == pytest.approx(1)


@pytest.mark.parametrize("name", ["raw", "centered_ranks", "normalized"])
def test_dropped_pairs_take_no_part_in_shaping(name: str) -> None:
    broken = LOSSES.clone()
    broken[1, 1] = float("nan")
    finite = torch.tensor([True, False, True])
    shaped = shape(name, broken, finite)
    assert shaped[:, 1].tolist() == [0.0, 0.0]
    torch.testing.assert_close(shaped[:, finite], shape(name, LOSSES[:, finite], finite[finite]))


@pytest.mark.parametrize("name", ["centered_ranks", "normalized"])
def test_equal_losses_are_shaped_to_zero(name: str) -> None:
    assert shape(name, torch.full((2, 3), 0.5), EVERY).abs().max() == 0


# --- sigma


@pytest.mark.parametrize(
    ("shape_name", "middle"), [("linear", 0.505), ("cosine", 0.505), ("exponential", math.sqrt(1.0 * 0.01))]
)
def test_schedules_begin_at_sigma_and_end_where_they_are_told(shape_name: str, middle: float) -> None:
    rule = Scheduled(0.01, shape_name).planned(11)
    found = [rule.sigma(1.0, generation, {}) for generation in (0, 5, 10, 50)]
    assert found == pytest.approx([1.0, middle, 0.01, 0.01])


def test_a_schedule_keeps_the_length_it_was_given() -> None:
    assert Scheduled(0.1, "linear", generations=3).planned(100).sigma(0.3, 1, {}) == pytest.approx(0.2)


@pytest.mark.parametrize("curvature", [2.0, -2.0])
def test_the_slope_of_sigma_is_that_of_the_smoothed_quadratic(curvature: float) -> None:
    """L_σ = L + σ² h d / 2, so dL_σ/dσ is σ h d, and σ h per parameter: sigma shrinks in a bowl and grows on a hill."""
    sigma, rate = 0.2, 1e-3
    made = PGPE(sigma, 200, sigma_rule=Learned(rate=rate))
    params = {"x": torch.zeros(30, dtype=torch.float64)}
    changes = []
    for generation in range(100):
        estimate = made.estimate(partial(bowl, curvature=curvature), params, generation, made.initial_state(params))
        changes.append(float(estimate.state["sigma"]) - sigma)
    found = torch.tensor(changes, dtype=torch.float64)
    error = float(found.std()) / math.sqrt(len(changes))
    assert abs(float(found.mean()) + rate * sigma * curvature) < 4 * error
    assert 4 * error < 0.3 * rate * sigma * abs(curvature)


def test_a_learned_sigma_changes_by_its_largest_step_and_stops_at_its_minimum() -> None:
    rule = Learned(rate=1e6, max_change=0.2, minimum=0.01)
    assert float(rule.updated(0.1, slope=1.0)["sigma"]) == pytest.approx(0.08)
    assert float(rule.updated(0.1, slope=-1.0)["sigma"]) == pytest.approx(0.12)
    assert float(rule.updated(0.011, slope=1.0)["sigma"]) == 0.01
    with pytest.raises(ConfigError, match="begins below pgpe.sigma_rule.minimum"):
        rule.initial_state(0.001)


def test_a_learned_sigma_is_the_one_that_noise_is_drawn_with() -> None:
    params = {"x": torch.ones(4, dtype=torch.float64)}
    learned = PGPE(0.5, 6, sigma_rule=Learned()).estimate(bowl, params, 2, {"sigma": torch.tensor(0.1).double()})
    torch.testing.assert_close(learned.gradient, PGPE(0.1, 6).estimate(bowl, params, 2).gradient, rtol=1e-6, atol=0)
    assert learned.statistics["sigma"] == pytest.approx(0.1)


# --- noise


def test_low_rank_noise_has_unit_variance_and_the_rank_it_says() -> None:
    params = {"kernel": torch.zeros(8, 3, 4, 4), "bias": torch.zeros(8), "small": torch.zeros(2, 2)}
    sample = LowRankNoise(0, 0.5, rank=2).sample(params, 0, range(2000))
    for name, p in params.items():
        assert sample[name].shape == (2000, *p.shape)
        unit = sample[name] / 0.5
        # Entries are products: the fourth moment of A Bᵀ/√r is 3 + 6/r, its square's standard deviation below 2.3.
        assert ((unit.square().mean(0) - 1).abs() < 5 * 2.3 / math.sqrt(2000)).all(), name
        assert (unit.mean(0).abs() < 5 / math.sqrt(2000)).all(), name
    matrices = sample["kernel"][:20].flatten(2)
    assert torch.linalg.matrix_rank(matrices, rtol=1e-4).tolist() == [2] * 20


def test_differences_along_low_rank_noise_are_no_derivatives_and_say_so() -> None:
    """Of w12 · w21 · w22 at zero, Gaussian noise finds nothing in entry (1, 1), products of two vectors find σ²."""

    def product(params: dict[str, torch.Tensor]) -> torch.Tensor:
        w = params["w"]
        return w[0, 1] * w[1, 0] * w[1, 1]

    params = {"w": torch.zeros(3, 3, dtype=torch.float64)}
    for family, unbiased, expected in ((GaussianNoise, True, 0.0), (partial(LowRankNoise, rank=1), False, 1.0)):
        made = PGPE(1.0, 40_000, strategy="vmap", member_chunk=40_000, noise=family)
        assert made.unbiased == unbiased
        assert float(made.estimate(product, params, 0).gradient["w"][0, 0]) == pytest.approx(expected, abs=0.3)


def test_what_is_shrunk_is_biased_which_needs_a_guess() -> None:
    assert PGPE(0.1, 4, shrinkage="james_stein").unbiased
    assert PGPE(0.1, 4, control_variate=PlainGradient()).unbiased
    assert not PGPE(0.1, 4, control_variate=PlainGradient(), shrinkage="james_stein").unbiased
    assert not PGPE(0.1, 4, fitness="normalized").unbiased


def test_low_rank_noise_is_a_function_of_seed_generation_and_pair() -> None:
    params = {"w": torch.zeros(5, 7), "b": torch.zeros(5)}
    noise = LowRankNoise(3, 1.0, rank=1)
    whole = noise.sample(params, 4, range(6))
    for pair in range(6):
        alone = noise.sample(params, 4, range(pair, pair + 1))
        assert all(torch.equal(alone[k][0], whole[k][pair]) for k in params)
    assert not torch.equal(whole["w"], noise.sample(params, 5, range(6))["w"])


def test_low_rank_noise_has_no_density_to_learn_sigma_by() -> None:
    with pytest.raises(ConfigError, match="needs pgpe/noise=gaussian"):
        PGPE(0.1, 4, sigma_rule=Learned(), noise=partial(LowRankNoise, rank=2))


# --- layers


def test_a_factor_scales_the_noise_and_not_the_gradient() -> None:
    """Of a linear loss: the perturbation of x is half as large, the gradient is estimated as it is."""
    params = {"x": torch.zeros(1, dtype=torch.float64), "y": torch.zeros(1, dtype=torch.float64)}
    seen: list[float] = []

    def loss(p: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(float(p["x"]))
        return 3 * p["x"].sum()

    made = PGPE(0.1, 2000, strategy="loop", layer_scale=LayerScale({"x": 0.5, "*": 2.0}))
    estimate = made.estimate(loss, params, 0)
    assert float(torch.tensor(seen).std()) == pytest.approx(0.05, rel=0.1)
    assert float(estimate.gradient["x"]) == pytest.approx(3, rel=0.2)


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no parameter matches 'z\*'; there are x"):
        PGPE(0.1, 2, layer_scale=LayerScale({"z*": 2.0})).estimate(bowl, {"x": torch.zeros(1)}, 0)
    with pytest.raises(ConfigError, match="must be positive"):
        LayerScale({"x": 0.0})


# --- sums


def test_noise_that_does_not_fit_is_drawn_again_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"x": torch.linspace(-1, 1, 6)}
    made = PGPE(0.1, 40, fitness="centered_ranks")
    monkeypatch.setattr(pairs_module, "MAX_BLOCK", 3)
    kept = made.estimate(bowl, params, 0)
    drawn: list[range] = []
    original = GaussianNoise.sample

    def counted(self: GaussianNoise, p: dict, generation: int, which: range) -> dict:
        drawn.append(which)
        return original(self, p, generation, which)

    monkeypatch.setattr(GaussianNoise, "sample", counted)
    monkeypatch.setattr(pairs_module, "NOISE_NUMBERS", 18)
    again = made.estimate(bowl, params, 0)
    assert len(drawn) == 2 * 7, "seven blocks of three pairs, in two passes"
    assert torch.equal(kept.gradient["x"], again.gradient["x"])


def test_the_signal_to_noise_ratio_is_the_one_of_its_definition() -> None:
    parts = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean = parts.mean(0)
    square = float(mean.square().sum())
    found = signal_to_noise(square, trace_of_covariance(square, float(parts.square().sum()), len(parts)))
    covariance = torch.cov(parts.T) / len(parts)
    assert found == pytest.approx(float(mean.square().sum() / covariance.trace()))
    assert math.isnan(signal_to_noise(1.0, trace_of_covariance(1.0, 1.0, 1)))
    assert signal_to_noise(4.0, trace_of_covariance(4.0, 8.0, 2)) == math.inf


def test_the_signal_to_noise_ratio_of_a_population_is_that_of_its_pairs() -> None:
    """From single pairs, each an estimate of its own; a factor per layer included."""
    params = {"x": torch.linspace(-1, 1, 6, dtype=torch.float64), "y": torch.ones(2, dtype=torch.float64)}

    def loss(p: dict[str, torch.Tensor]) -> torch.Tensor:
        return p["x"].square().sum() + p["y"].prod()

    scale = {"y": 3.0}
    noise = GaussianNoise(0, 0.1).sample(params, 0, range(10))
    parts = []
    for i in range(10):
        e = {k: n[i] * scale.get(k, 1.0) for k, n in noise.items()}
        weight = (loss({k: params[k] + e[k] for k in e}) - loss({k: params[k] - e[k] for k in e})) / (2 * 0.1**2)
        parts.append(torch.cat([weight * e[k] / scale.get(k, 1.0) ** 2 for k in e]))
    stacked = torch.stack(parts)
    estimate = PGPE(0.1, 20, layer_scale=LayerScale(scale)).estimate(loss, params, 0)
    square = float(stacked.mean(0).square().sum())
    expected = signal_to_noise(square, trace_of_covariance(square, float(stacked.square().sum()), 10))
    assert estimate.statistics["gradient_snr"] == pytest.approx(expected, rel=1e-6)
