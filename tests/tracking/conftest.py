"""One short run that logs everywhere, for all tests of the views."""

from pathlib import Path

import pytest

from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import plain
from certtrain.cli.job.entry import run_in
from certtrain.cli.rundir.directory import RunDirectory

SHORT = (
    *("logger=[wandb,csv,tensorboard]", "model.widths=[16]", "pgpe.population_size=8", "trainer.max_epochs=2"),
    *("trainer.log_every_n_steps=5", "certify.limit=30", "certify.attack.steps=3", "certify.attack.restarts=1"),
    *("logger.wandb.group=together", "logger.wandb.images=3"),
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its directory."""
    directory = tmp_path_factory.mktemp("logged") / "run"
    directory.mkdir()
    (job,) = compose_jobs(Command(SHORT, False, False))
    node = plain(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        RunDirectory(directory).write_configuration(node)
        run_in(directory, node)
    return directory
