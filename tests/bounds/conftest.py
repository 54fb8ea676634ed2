"""Every bound test runs on each relaxation of the registry and on each network of the zoo."""

import pytest
import zoo
from cases import VARIANTS, Case, make_case

from certtrain.bounds import Relaxation, build


@pytest.fixture(params=list(VARIANTS))
def relaxation(request: pytest.FixtureRequest) -> Relaxation:
    return build(**VARIANTS[request.param])


@pytest.fixture(params=list(zoo.NETWORKS), scope="session")
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)
