"""The devices of these tests: one that is not there, which every machine has, and CUDA."""

from collections.abc import Iterator

import elsewhere
import pytest
import torch

NO_CUDA = "torch sees no CUDA device"
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture
def cuda() -> torch.device:
    """A GPU, or a reason why there is none."""
    if not torch.cuda.is_available():
        pytest.skip(NO_CUDA)
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(params=["elsewhere", CUDA])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Another device than the CPU."""
    if request.param == "cuda":
        yield request.getfixturevalue("cuda")
        return
    if not elsewhere.available:
        pytest.skip("torch has a GPU, beside which no device can be pretended, or is a version that cannot pretend")
    with elsewhere.elsewhere() as found:
        yield found


@pytest.fixture(params=["cpu", CUDA])
def accelerator(request: pytest.FixtureRequest) -> str:
    """What Lightning calls a device: it trains on such that are there."""
    if request.param == "cuda":
        request.getfixturevalue("cuda")
    return "gpu" if request.param == "cuda" else "cpu"
