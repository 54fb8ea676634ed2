"""Errors that a user can act on: each message is one line that says what is wrong and what would be right."""


class CerttrainError(Exception):
    """Base of all errors that are reported as one line, without a traceback."""


class ConfigError(CerttrainError):
    """A configuration value, or a combination of values, that cannot be run."""


class DataError(CerttrainError):
    """Data that is missing or does not have the declared layout."""


class UnsupportedOperation(CerttrainError):
    """A network contains an operation that no sound rule is known for."""
