"""A compiled call comes back to Python again and again: nothing changes by that, and signals are heard."""

import signal
from collections.abc import Callable, Iterator

import pytest
import torch
from cases import needs_compiler
from compiled_cases import LAYOUTS, bounds, gradient, in_layout, quiet, wide
from torch import Tensor

from certtrain.bounds import Box, build
from certtrain.bounds.executors.compiled import task
from certtrain.bounds.executors.compiled.build import Entry
from certtrain.networks import Params


@pytest.fixture
def signal_in() -> dict[str, int]:
    """The piece in which a signal arrives; none at first."""
    return {}


@pytest.fixture
def calls(signal_in: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of calls that each piece of work took, when all of them end as early as they can."""
    counts: list[int] = []
    run = task.run

    def counting(entry: Entry, numbers: list[int], threads: int) -> None:
        def counted(*arguments: object) -> int:
            counts[-1] += 1
            if counts[-1] == signal_in.get("piece"):
                signal.setitimer(signal.ITIMER_REAL, 1e-3)
            return entry(*arguments)

        counts.append(0)
        run(counted, numbers, threads)

    for module in ("call", "derivatives"):
        monkeypatch.setattr(f"certtrain.bounds.executors.compiled.{module}.run", counting)
    monkeypatch.setattr(task, "PIECE_SECONDS", 0.0)
    return counts


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def in_one_call(compute: Callable[[], Tensor]) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "PIECE_SECONDS", 1e9)
        return compute()


@needs_compiler
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["deeppoly", "zonotope"])
@pytest.mark.parametrize("network", [wide, quiet])
def test_bounds_are_bitwise_those_of_one_call(name, network, layout, calls: list[int], monkeypatch) -> None:
    executor = in_layout(layout)
    graph, params, inputs = network()
    whole = in_one_call(lambda: bounds(name, graph, params, inputs, executor).lower)
    one_each, calls[:] = list(calls), []
    assert set(one_each) == {1}
    assert torch.equal(bounds(name, graph, params, inputs, executor).lower, whole)
    assert len(calls) == len(one_each)
    assert max(calls) > 2


@needs_compiler
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["crown_ibp", "deeppoly"])
@pytest.mark.parametrize("network", [wide, quiet])
def test_gradients_are_bitwise_those_of_one_call(network, name: str, layout: str, calls: list[int]) -> None:
    graph, params, inputs = network()
    executor = in_layout(layout)

    def compute() -> Tensor:
        return torch.cat([g.flatten() for g in gradient(name, graph, params, inputs, executor).values()])

    whole = in_one_call(compute)
    calls.clear()
    assert torch.equal(compute(), whole)
    assert max(calls) > 2


@needs_compiler
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_population_is_bitwise_that_of_one_call(layout: str, calls: list[int], monkeypatch) -> None:
    executor = in_layout(layout)
    graph, params, inputs = wide()
    members = {k: torch.stack([p, p + 0.01, p * 0.9]) for k, p in params.items()}

    def compute() -> Tensor:
        with torch.no_grad():
            return torch.func.vmap(lambda p: bounds("deeppoly", graph, p, inputs, executor).lower)(members)

    whole = in_one_call(compute)
    calls.clear()
    assert torch.equal(compute(), whole)
    assert max(calls) > 2


class Signalled(BaseException):
    """What a handler raises, as certtrain's own does."""


@pytest.fixture
def raising() -> Iterator[None]:
    """A handler that raises."""

    def handle(number: int, frame: object) -> None:
        raise Signalled

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@needs_compiler
@pytest.mark.usefixtures("raising")
@pytest.mark.parametrize("kind", ["bounds", "a population", "derivatives"])
def test_a_signal_is_heard_before_the_end(kind, calls: list[int], signal_in: dict[str, int], monkeypatch) -> None:
    monkeypatch.setattr(task, "PIECE_SECONDS", 0.02)
    graph, params, inputs = wide()
    box, relaxation = Box.linf(inputs.repeat(60, 1, 1, 1), 0.02), build("deeppoly")

    def lower(p: Params) -> Tensor:
        return relaxation.bound(graph, p, box, sides="lower").lower

    leaves = {k: p.clone().requires_grad_() for k, p in params.items()}
    population = {k: p.expand(2, *p.shape) for k, p in params.items()}
    found = lower(leaves if kind == "derivatives" else params).sum()
    works = {
        "bounds": lambda: lower(params),
        "a population": torch.no_grad()(lambda: torch.func.vmap(lower)(population)),
        "derivatives": found.backward,
    }
    signal_in["piece"] = 3
    with pytest.raises(Signalled):
        works[kind]()
    assert calls[-1] == 3, "it raised in the piece in which the signal arrived, and no other one was begun"
