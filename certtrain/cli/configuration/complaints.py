"""What is wrong with a configuration, in a sentence: pydantic's texts name its own classes and Python's types."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# Kind of an error -> what would be right. Of all others the text begins with "Input should be".
SENTENCES = {
    "model_type": "must be a node with keys of its own",
    "dict_type": "must be a node with keys of its own",
    "list_type": "must be a list, as in [a,b]",
    "tuple_type": "must be a list, as in [a,b]",
    "string_type": "must be a word",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}
_LONGEST = 80


def complaint(error: ValidationError) -> str:
    """The first thing that is wrong: its key, what it must be, and what it is."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    match first["type"]:
        case "extra_forbidden" if key.split(".")[0] == "experiment":
            return f"unknown key '{key}': a file of experiment/ begins with the line '# @package _global_'"
        case "extra_forbidden" | "invalid_key":  # the latter is one that is no word, such as 1
            return f"unknown key '{key}'"
        case "missing" if isinstance(first["loc"][-1], int):
            parent = key.rpartition(".")[0]
            return f"{parent} must have at least {first['loc'][-1] + 1} entries, got {_short(repr(first['input']))}"
        case "missing":
            return f"missing key '{key}'"
        case "value_error":
            message = first["msg"].removeprefix("Value error, ")
            return _short(f"{key}: {message}" if key else message, 3 * _LONGEST)
    return f"{key or 'all of it'} {_sentence(key, first)}, got {_short(repr(first['input']))}"


def _sentence(key: str, found: ErrorDetails) -> str:
    kind = found["type"]
    if key == "pgpe.population_size" and kind == "multiple_of":
        return "must be even (antithetic pairs)"
    if kind in SENTENCES:
        return SENTENCES[kind].format(**found.get("ctx", {})).replace("1 entries", "1 entry")
    text = found["msg"].replace("Input should be", "must be").replace("Input", "it")
    if kind == "float_type" and (quotient := _quotient(str(found["input"]))) is not None:
        text += f" (a fraction is not computed: write {quotient:.6g})"
    return text


def _quotient(text: str) -> float | None:
    """What a fraction such as 8/255 comes to; None for anything else."""
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below)
    except (ValueError, ZeroDivisionError):
        return None


def _short(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else text[:longest] + "..."
