"""Errors that a user can act on: each message is one line that says what is wrong and what would be right."""


class CerttrainError(Exception):
    """Base of all errors that are reported as one line, without a traceback."""


class ConfigError(CerttrainError):
    """A configuration value, or a combination of values, that cannot be run."""


class DataError(CerttrainError):
    """Data that is missing or does not have the declared layout."""


class UnsupportedOperation(CerttrainError):
    """A network contains an operation that no sound rule is known for."""


def one_line(error: BaseException) -> str:
    """The first line of an error's text that says something, or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
