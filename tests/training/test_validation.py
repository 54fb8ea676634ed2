"""By which bounds validation certifies, and so which checkpoint is the best."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases import make_case
from rich.console import Console

from certtrain.bounds import build
from certtrain.cli.assembly.bounds import make_validation
from certtrain.cli.assembly.data import make_data
from certtrain.cli.assembly.network import make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import RunConfig, parse, plain
from certtrain.cli.job.job import Job
from certtrain.errors import ConfigError
from certtrain.losses import (
    AdCert,
    Adversarial,
    AdvIbp,
    CcIbp,
    CrownIBP,
    Distillation,
    ExpIbp,
    FeatureDistillation,
    LossFusion,
    MtlIbp,
    Natural,
    OptimisedSlopes,
    RobustCrossEntropy,
    Sabr,
    Staps,
    Taps,
    Trades,
)
from certtrain.networks import parameters
from certtrain.training.checkpoints import load_network
from certtrain.training.judging import judge
from certtrain.training.metrics import JsonlLogger
from certtrain.training.objective import Objective, Validation
from certtrain.training.schedules import Ramp

pytestmark = pytest.mark.usefixtures("no_report")

QUICK = (
    "method=grad",
    "certify.enabled=false",
    "data.batch_size=256",
    "data.test_batch_size=64",
    "model.widths=[16,12]",
)


def config(*overrides: str) -> RunConfig:
    (job,) = compose_jobs(Command((*QUICK, *overrides), False, False))
    return parse(plain(job))


@pytest.fixture(scope="module")
def by_intervals() -> RunConfig:
    return config("relaxation=ibp")


LOOSE = {
    "robust_ce": RobustCrossEntropy(),
    "crown_ibp": CrownIBP(),
    "loss_fusion": LossFusion(),
    "optimised_slopes": OptimisedSlopes(),
    "adv_ibp": AdvIbp(),
    "sabr of the whole box": Sabr(subselection_ratio=1.0),
    "mtl_ibp of bounds alone": MtlIbp(alpha=1.0),
    "distillation": Distillation(base=RobustCrossEntropy()),
}
TIGHT = {
    "natural": Natural(),
    "pgd": Adversarial(),
    "trades": Trades(),
    "sabr": Sabr(),
    "taps": Taps(),
    "staps": Staps(),
    "mtl_ibp": MtlIbp(),
    "cc_ibp": CcIbp(),
    "exp_ibp": ExpIbp(),
    "ad_cert": AdCert(),
    "feature_distillation": FeatureDistillation(base=CcIbp()),
}


@pytest.mark.parametrize("name", [*LOOSE, *TIGHT])
def test_losses_that_intervals_hardly_certify_are_validated_by_a_tighter_relaxation(
    by_intervals: RunConfig, name: str
) -> None:
    loss = {**LOOSE, **TIGHT}[name]
    expected = Validation("crown_ibp", build("crown_ibp"), 1000) if name in TIGHT else Validation("ibp")
    assert make_validation(by_intervals, loss) == expected


def test_a_tight_relaxation_and_what_is_named_stay() -> None:
    def validation(*overrides: str) -> Validation:
        return make_validation(config(*overrides), Sabr())

    assert validation("relaxation=deeppoly") == Validation("deeppoly")
    assert validation("relaxation=ibp", "validation.relaxation=training") == Validation("ibp")
    other = validation("relaxation=ibp", "validation.relaxation=deeppoly", "validation.images=7")
    assert other == Validation("deeppoly", build("deeppoly"), 7)
    assert str(other) == "by deeppoly (the first 7 images)"
    with pytest.raises(ConfigError, match=r"validation.relaxation must be null or one of training, ibp, .*deeppoly\?"):
        validation("validation.relaxation=deepoly")
    with pytest.raises(ConfigError, match="validation.relaxation needs validation: data.validation=0"):
        config("validation.relaxation=ibp", "data.validation=0")


@pytest.mark.parametrize(("place", "certified"), [(0, 5), (3, 2), (5, 0), (9, 0)])
def test_the_first_images_are_certified_and_the_loss_is_of_all(place: int, certified: int) -> None:
    case = make_case("mlp")
    objective = Objective(build("ibp"), RobustCrossEntropy(), 0.02, (0.0, 1.0), Ramp(0.0, 0.02), Ramp(0.0, 0.0))
    by_other = replace(objective, validation=Validation("deeppoly", build("deeppoly"), 5))
    inputs, labels = case.inputs, case.labels
    assert len(inputs) >= 5
    with torch.no_grad():
        by_training = judge(case.graph, objective, case.params, inputs, labels, place=place)
        found = judge(case.graph, by_other, case.params, inputs, labels, place=place)
        tight = judge(case.graph, replace(objective, relaxation=build("deeppoly")), case.params, inputs, labels)
    torch.testing.assert_close(found.loss, by_training.loss)
    assert len(by_training.certified) == len(inputs)
    assert torch.equal(found.certified, tight.certified[:certified])


def test_the_best_checkpoint_is_that_of_the_validating_relaxation_and_the_record_says_so(tmp_path: Path) -> None:
    """What is logged is what the checkpoint gives when it is judged again, image by image over several batches."""
    asked = ("relaxation=ibp", "loss=sabr", "loss.subselection_ratio=0.1", "trainer.max_epochs=3", "eps=0.03")
    chosen = config(*asked, "schedule.eps={warmup: 0, ramp: 0, scale: 1.0}", "validation.images=90")
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    record = Job(chosen, tmp_path, Console(quiet=True)).run([logger])
    assert record["validated_by"] == "crown_ibp"
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = [row["val/certified_accuracy"] for row in rows if "val/certified_accuracy" in row]
    assert max(logged) > 0
    data = make_data(chosen)
    data.setup()
    network, graph = make_network(chosen, data.source)
    load_network(network, tmp_path / "checkpoints" / "best.ckpt")
    objective = replace(make_training(chosen, network, graph).objective, validation=Validation("training"))
    crown = replace(objective, relaxation=build("crown_ibp"), loss=RobustCrossEntropy())
    inputs, labels = (torch.cat(part) for part in zip(*((x, y) for x, y, _ in data.val_dataloader()), strict=True))
    with torch.no_grad():
        found = judge(graph, crown, parameters(network), inputs[:90], labels[:90])
    assert float(found.certified.float().mean()) == pytest.approx(max(logged))
