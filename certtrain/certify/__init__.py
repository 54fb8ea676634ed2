"""Certification that can be trusted: for every image one verdict, and for every verdict its evidence.

`certifier` is the entrance, `arguments` checks what comes in; `pipeline` leads images through prediction, attack and
verifiers in the order that a `cascade` has, and `case` turns what was found into a `Verdict`. A counterexample is
evidence once it is confirmed in two precisions (`counterexamples`), a positive margin likewise (`verifiers`, one per
file); `soundness` stops everything when evidence contradicts itself. `batching` makes exceptions and exhausted memory
part of a record instead of the end of a run, `ledger` writes rows that survive a restart, one ledger for each `shard`;
`summary` and `stages` count them. `decide` answers a `Property`: `questions` makes tensors of it, `falsify` looks for
counterexamples, `search` for proofs.
"""

from certtrain.certify.attack import Attack, AttackEnsemble, Falsifier
from certtrain.certify.certifier import certify
from certtrain.certify.counterexamples import read_counterexample
from certtrain.certify.ledger import read_ledger, read_verifiers
from certtrain.certify.soundness import SoundnessError
from certtrain.certify.stages import StageTally, tally_stages
from certtrain.certify.summary import Tally, summarize, tally_verifier
from certtrain.certify.verdict import STATUSES, Failure, Status, Verdict
from certtrain.certify.verifiers import Proved, RelaxationVerifier, Verifier

__all__ = [
    "STATUSES",
    "Attack",
    "AttackEnsemble",
    "Failure",
    "Falsifier",
    "Proved",
    "RelaxationVerifier",
    "SoundnessError",
    "StageTally",
    "Status",
    "Tally",
    "Verdict",
    "Verifier",
    "certify",
    "read_counterexample",
    "read_ledger",
    "read_verifiers",
    "summarize",
    "tally_stages",
    "tally_verifier",
]

# `certtrain.certify` is the function, and `certtrain.certify.Attack` what people then write.
vars(certify).update({name: value for name, value in globals().items() if not name.startswith("_")})
