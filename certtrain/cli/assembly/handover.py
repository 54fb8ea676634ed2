"""Data that preflight has read, for the run that follows in the same process: reading may take minutes."""

from certtrain.data.source import Source, Splits

_kept: list[tuple[Source, Splits]] = []


def keep(source: Source, splits: Splits) -> None:
    """Keeps what a source has loaded, and nothing that was kept before."""
    _kept[:] = [(source, splits)]


def kept(source: Source) -> Splits | None:
    """What is kept of this source."""
    return next((splits for known, splits in _kept if known == source), None)


def forget() -> None:
    """Frees the memory; what changes on disk from here on is read anew."""
    _kept.clear()
