"""Sizes of what is measured. Nothing here needs torch, so that mistakes in the command line are answered at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.settings import NO_DATA, Settings


@dataclass(frozen=True)
class Limits:
    """How often something is timed: `least` times, then until `most` times or `seconds` are reached."""

    least: int
    most: int
    seconds: float


@dataclass(frozen=True)
class Population:
    """Members of a population on one batch.

    Attributes:
        model: A choice in conf/model.
        data: A choice in conf/data.
        members: Of the population.
        batch: Images that each member is evaluated on.
        eps: Radius of the boxes.
        strategies: Of the native evaluation.
        counted: Members that auto_LiRPA is timed on; the others are assumed to take as long.
    """

    model: str
    data: str
    members: int
    batch: int
    eps: float
    strategies: tuple[str, ...]
    counted: int


@dataclass(frozen=True)
class Footprint:
    """One bound computation in a process of its own; `compared` says whether auto_LiRPA's memory is measured, too."""

    network: str
    batch: int
    method: str
    grad: bool
    compared: bool = True


@dataclass(frozen=True)
class Neighbours:
    """Jobs that are measured alone and beside a second one.

    Attributes:
        cases: What is measured.
        second: What the second job computes over and over.
        starts: Fresh processes for every number.
        limits: In each of them.
    """

    cases: tuple[Footprint | Population, ...]
    second: Population
    starts: int
    limits: Limits


@dataclass(frozen=True)
class SearchPlan:
    """Of the section certify.

    Attributes:
        networks: Names in `vnncomp.recipes`.
        images: That alpha_crown bounds together.
        iterations: Of alpha_crown.
        instances: Of each network and radius, at most.
        seconds: For each.
        certified: Choices in conf/model whose images go through all stages of a complete certification.
        judged: Images of each.
    """

    networks: tuple[str, ...]
    images: int
    iterations: int
    instances: int
    seconds: float
    certified: tuple[str, ...]
    judged: int


@dataclass(frozen=True)
class Generation:
    """One generation of PGPE.

    Attributes:
        model: A choice in conf/model.
        data: A choice in conf/data.
        relaxation: Its bounds.
        members: Of the population.
        batch: Images.
        eps: Radius of the boxes.
        strategy: How members are evaluated.
    """

    model: str
    data: str
    relaxation: str
    members: int
    batch: int
    eps: float
    strategy: str


@dataclass(frozen=True)
class Approach:
    """A way to a certified accuracy.

    Attributes:
        name: For people.
        data: A choice in conf/data.
        keys: What is trained, but for the estimator.
        target: Certified accuracy on validation images, 0 to 1.
    """

    name: str
    data: str
    keys: tuple[str, ...]
    target: float


@dataclass(frozen=True)
class Plan:
    """Sizes of all sections.

    Attributes:
        limits: For every row.
        networks: Choices in conf/model, with the batch of each.
        weights: "random", or "ibp" for weights trained through intervals.
        batches: For the section of that name.
        populations: For the section of that name.
        footprints: For the section memory.
        scaling: Values of each axis.
        products: m, k, n of the matrix products [m, k] x [k, n] that find the machine's peak.
        neighbours: For the section of that name.
        search: For the section certify.
        generations: For the section approaches: of these the noise's share is measured.
        approaches: For the section of that name.
    """

    limits: Limits
    networks: tuple[tuple[str, int], ...]
    weights: tuple[str, ...]
    batches: tuple[int, ...]
    populations: tuple[Population, ...]
    footprints: tuple[Footprint, ...]
    scaling: tuple[tuple[str, tuple[int, ...]], ...]
    products: tuple[tuple[int, int, int], ...]
    neighbours: Neighbours
    search: SearchPlan
    generations: tuple[Generation, ...]
    approaches: tuple[Approach, ...]


DIGITS = Population("mlp", "digits", 64, 128, 0.05, ("vmap", "loop"), 64)
FULL = Plan(
    limits=Limits(least=3, most=15, seconds=6.0),
    networks=(("cnn3", 64), ("cnn5", 16)),
    weights=("random", "ibp"),
    batches=(1, 4, 16, 64, 256, 512),
    populations=(
        DIGITS,
        Population("cnn3", "mnist", 16, 64, 0.1, ("loop",), 2),
    ),
    footprints=(
        *(
            Footprint(network, batch, method, grad)
            for network, batch in (("cnn3", 64), ("cnn5", 16))
            for method, grad in (
                ("crown_ibp", False),
                ("deeppoly", False),
                ("deeppoly", True),
                ("deeppoly_textbook", False),
            )
        ),
        Footprint("cnn7", 4, "deeppoly", False, compared=False),
    ),
    scaling=(
        ("batch", (4, 8, 16, 32, 64, 128)),
        ("members", (1, 2, 4, 8, 16)),
        ("width", (1, 2, 3, 4, 6)),
        ("depth", (2, 3, 4, 5, 6)),
    ),
    products=((2048, 2048, 2048), (4096, 1024, 1024), (16384, 512, 512), (32768, 256, 256), (65536, 128, 128)),
    neighbours=Neighbours(
        cases=(
            Footprint("cnn3", 64, "deeppoly", False),
            Footprint("cnn3", 64, "deeppoly", True),
            Footprint("cnn5", 16, "crown_ibp", True),
            DIGITS,
        ),
        second=DIGITS,
        starts=4,
        limits=Limits(least=5, most=100, seconds=2.0),
    ),
    search=SearchPlan(
        ("mnist_256x2", "mnist_256x4", "mnist_256x6", "mnist_resnet"),
        images=4,
        iterations=20,
        instances=15,
        seconds=20.0,
        certified=("cnn3",),
        judged=512,
    ),
    generations=(
        Generation("mlp", "digits", "deeppoly", 64, 64, 0.05, "vmap"),
        Generation("cnn3", "mnist", "ibp", 64, 64, 0.1, "loop"),
        Generation("cnn5", "mnist", "ibp", 64, 64, 0.1, "loop"),
        Generation("cnn5", "mnist", "crown_ibp", 64, 16, 0.1, "loop"),
    ),
    approaches=(
        Approach("digits, eps 0.05, deeppoly", "digits", ("relaxation=deeppoly", "pgpe.strategy=vmap"), 0.85),
        Approach(
            "mnist, cnn3, eps 0.1, ibp",
            "mnist",
            (
                *("model=cnn3", "eps=0.1", "relaxation=ibp", "pgpe.strategy=loop", "pgpe.sigma=0.002"),
                *("optimizer.lr=0.001", "data.batch_size=128", "trainer.max_epochs=3", "schedule.eps.ramp=1"),
            ),
            0.85,
        ),
    ),
)
FEW_DIGITS = Population("mlp", "digits", 4, 8, 0.05, ("vmap", "loop"), 4)
QUICK = Plan(
    limits=Limits(least=2, most=2, seconds=0.0),
    networks=(("cnn3", 2),),
    weights=("random",),
    batches=(1, 4),
    populations=(
        FEW_DIGITS,
        Population("cnn3", "mnist", 2, 2, 0.1, ("loop",), 1),
    ),
    footprints=(Footprint("cnn3", 2, "deeppoly", False),),
    scaling=(("batch", (1, 2, 4)), ("members", (1, 2)), ("width", (1, 2)), ("depth", (2, 3))),
    products=((256, 256, 256), (1024, 256, 256)),
    neighbours=Neighbours(
        cases=(Footprint("cnn3", 2, "deeppoly", True),),
        second=FEW_DIGITS,
        starts=1,
        limits=Limits(least=2, most=2, seconds=0.0),
    ),
    search=SearchPlan(
        ("mnist_256x2",), images=1, iterations=2, instances=1, seconds=0.5, certified=("cnn3",), judged=2
    ),
    generations=(Generation("mlp", "digits", "ibp", 4, 8, 0.05, "vmap"),),
    approaches=(
        Approach(
            "digits",
            "digits",
            ("relaxation=ibp", "pgpe.strategy=vmap", "pgpe.population_size=4", "trainer.max_steps=2", "eps=0.0"),
            0.0,
        ),
    ),
)


def plan_for(settings: Settings) -> Plan:
    """The sizes that a command line asks for."""
    plan = QUICK if settings.quick else FULL
    search = replace(
        plan.search,
        networks=settings.search_networks or plan.search.networks,
        seconds=settings.search_seconds or plan.search.seconds,
    )
    return replace(plan, search=search)


def weights_for(settings: Settings) -> tuple[str, ...]:
    """The weights that a command line allows: nothing can be trained on random images."""
    return ("random",) if settings.data == NO_DATA else plan_for(settings).weights
