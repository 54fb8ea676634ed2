"""Every backend with every relaxation, as the command line combines them: trains a step, or says why it cannot."""

from itertools import product
from pathlib import Path

import pytest
import torch

from certtrain._paths import config_dir
from certtrain.bounds.backends import _auto_lirpa_compat as compat
from certtrain.bounds.registry import AUTO_LIRPA, BACKENDS
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import plain
from certtrain.cli.help.page import choices
from certtrain.cli.job.entry import run_in
from certtrain.cli.job.preflight import preflight
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.errors import CerttrainError, ConfigError

pytestmark = pytest.mark.usefixtures("no_report")

RELAXATIONS = list(choices(config_dir() / "relaxation"))
QUICK = ("method=grad", "model.widths=[8]", "data.batch_size=8", "trainer.max_steps=1", "data.validation=0")
FAST = ("schedule.eps.warmup=0", "schedule.eps.ramp=0", "certify.enabled=false", "eps=0.01")


@pytest.mark.parametrize(("backend", "relaxation"), product(BACKENDS, RELAXATIONS))
def test_a_step_is_trained_or_refused(tmp_path: Path, backend: str, relaxation: str) -> None:
    overrides = (*QUICK, *FAST, f"relaxation={relaxation}", f"relaxation.backend={backend}", "hydra.run.dir=run")
    command = Command(overrides, False, False)
    if backend == "auto_lirpa":
        if relaxation not in AUTO_LIRPA:
            with pytest.raises(ConfigError, match=f"{relaxation} needs relaxation.backend=native: auto_LiRPA"):
                preflight(command)
            return
        if not compat.available():
            pytest.skip("auto_LiRPA cannot be imported here")
    preflight(command)
    (job,) = compose_jobs(command)
    node = plain(job)
    RunDirectory(tmp_path).write_configuration(node)
    record = run_in(tmp_path, node)
    assert (record["relaxation"], record["backend"]) == (relaxation, backend)
    weights = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert weights["global_step"] == 1
    assert all(tensor.isfinite().all() for tensor in weights["state_dict"].values())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("relaxation.memory_mb=5",), "relaxation.memory_mb=5 needs backend native; auto_lirpa has null only"),
        (("relaxation.lower_slope=zero",), "relaxation.lower_slope=zero needs backend native"),
        (("pgpe.strategy=vmap",), "use pgpe.strategy=loop or rgs"),
        (("method=rgs", "rgs.strategy=vmap"), "rgs.strategy=loop"),
    ],
)
def test_what_another_backend_cannot_do_is_refused(overrides: tuple[str, ...], message: str) -> None:
    if not compat.available():
        pytest.skip("auto_LiRPA cannot be imported here")
    with pytest.raises(CerttrainError, match=message):
        preflight(Command(("model.widths=[8]", "relaxation.backend=auto_lirpa", *overrides), False, False))
