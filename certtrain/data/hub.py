"""Manners towards Hugging Face `datasets`: ask before waiting for the network, and keep it quiet."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_TIMEOUT_S = 5.0


def hub_answers(repository: str) -> bool:
    """Whether the Hugging Face hub can be reached and has this data set.

    `datasets` itself retries for half a minute before it gives up; this asks once.

    Args:
        repository: the id of a data set on the hub, `owner/name`.
    """
    import huggingface_hub

    try:
        huggingface_hub.HfApi().dataset_info(repository, timeout=_TIMEOUT_S)
    except Exception:  # of a transport library that changes with the version: requests, httpx, httpx2
        return False
    return True


@contextmanager
def quiet_datasets(offline: bool) -> Iterator[None]:
    """Switches off progress bars and log messages of `datasets`, but not those of a download.

    Args:
        offline: do not even try the network; only data that are already cached are found.
    """
    import datasets

    bars, level, was_offline = (
        not datasets.are_progress_bars_disabled(),
        datasets.logging.get_verbosity(),
        datasets.config.HF_HUB_OFFLINE,
    )
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    datasets.config.HF_HUB_OFFLINE = offline or was_offline
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()
