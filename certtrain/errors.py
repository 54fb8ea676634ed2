"""Errors that a user can act on: each message is one line that says what is wrong and what would be right."""


class CerttrainError(Exception):
    """Base of all errors that are reported as one line, without a traceback."""


class ConfigError(CerttrainError):
    """A configuration value, or a combination of values, that cannot be run."""


class DataError(CerttrainError):
    """Data that is missing or does not have the declared layout."""


class UnsupportedOperation(CerttrainError):
    """A network contains an operation that no sound rule is known for."""


# Where the part of a library's text begins that is no message, but where it was raised.
_TRACES = ("Exception raised from", "frame #", "Traceback ", "C++ CapturedTraceback")
_LONGEST = 300


def one_line(error: BaseException) -> str:
    """An error's text up to its first empty line, in one line; its kind too where the text alone says nothing."""
    words: list[str] = []
    for line in str(error).strip().splitlines():
        if not line.strip() or line.strip().startswith(_TRACES):
            break
        words += line.split()
    text = " ".join(words)
    if len(words) < 2:  # the key of a KeyError, a number
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4].rstrip() + " ..."
