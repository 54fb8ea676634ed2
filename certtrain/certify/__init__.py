"""Certification that can be trusted: for every image one verdict, and for every verdict its evidence.

`certifier` is the entrance; `pipeline` leads each image through prediction, attack and every verifier, and
`case` turns what was found into a `Verdict`. A counterexample is evidence once it is confirmed in two
precisions (`attack`), a positive margin likewise (`verifiers`); `soundness` stops everything when evidence
contradicts itself. `batching` makes exceptions and exhausted memory part of a record instead of the end of a
run, `memory` chooses batches, `ledger` writes rows that survive a restart, and `summary` counts them.
"""

import sys
from types import ModuleType
from typing import Any

from certtrain.certify.attack import Attack
from certtrain.certify.certifier import certify
from certtrain.certify.ledger import read_ledger, read_verifiers
from certtrain.certify.soundness import SoundnessError
from certtrain.certify.summary import summarize
from certtrain.certify.verdict import STATUSES, Status, Verdict
from certtrain.certify.verifiers import Verifier

__all__ = [
    "STATUSES",
    "Attack",
    "SoundnessError",
    "Status",
    "Verdict",
    "Verifier",
    "certify",
    "read_ledger",
    "read_verifiers",
    "summarize",
]


class _CallableModule(ModuleType):
    """`certtrain.certify` names this package and, in the public interface, also the function in it."""

    def __call__(self, *args: Any, **kwargs: Any) -> list[Verdict]:
        return certify(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
