"""Opens the study file, whatever a process that was killed has left of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from certtrain.errors import ConfigError, one_line
from certtrain.tuning.choosers import make_pruner
from certtrain.tuning.settings import Settings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

FILES = {"journal": "study.journal", "sqlite": "study.db"}
NAME = "certtrain"


def opened(directory: Path, settings: Settings) -> Study:
    """The study of a directory, a new one where there is none.

    Args:
        directory: Of the sweep; exists.
        settings: Of the search.

    Raises:
        ConfigError: If the file there is none.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = directory / FILES[settings.storage]
    pruner, directions = make_pruner(settings), [objective.direction for objective in settings.objectives]
    try:
        return optuna.create_study(
            storage=_storage(path, settings.storage),
            study_name=NAME,
            directions=directions,
            load_if_exists=True,
            pruner=pruner,
        )
    except Exception as error:  # of Optuna's, SQLAlchemy's or json's many kinds
        raise ConfigError(f"{path} is no study file: {one_line(error)}") from error


def _storage(path: Path, kind: str) -> BaseStorage:
    if kind == "sqlite":
        from optuna.storages import RDBStorage

        return RDBStorage(f"sqlite:///{path}")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _drop_torn_end(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _drop_torn_end(path: Path) -> None:
    """Removes the line that a killed process was writing: what was not written whole has not happened.

    Its lock, too: this is the only process that has the file open.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.is_file():
        return
    text = path.read_bytes()
    if whole := text[: text.rfind(b"\n") + 1]:
        if len(whole) < len(text):
            path.write_bytes(whole)
    elif text:
        path.write_bytes(b"")
