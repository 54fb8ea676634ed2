"""What theory demands of parts that users add: one call for each kind of part, and the checks by name.

    from certtrain.testing import check_relaxation
    check_relaxation(MyRelaxation())

A check raises AssertionError and says what it found. certtrain's own tests run the same checks on every registered
part, on more networks. `networks` has a few small ones to check on, `ranks` processes that are threads; `relaxations`,
`activations`, `estimators` and `losses` hold the checks. `oracle` asks verifiers what mixed-integer programs have
answered.
"""

from certtrain.testing.activations import ACTIVATION_CHECKS, check_activation
from certtrain.testing.estimators import ESTIMATOR_CHECKS, check_estimator
from certtrain.testing.losses import LOSS_CHECKS, check_loss
from certtrain.testing.networks import Subject, subjects
from certtrain.testing.oracle import Comparison, OracleQuestion, compare_with_oracle, oracle_question
from certtrain.testing.relaxations import RELAXATION_CHECKS, check_relaxation

__all__ = [
    "ACTIVATION_CHECKS",
    "ESTIMATOR_CHECKS",
    "LOSS_CHECKS",
    "RELAXATION_CHECKS",
    "Comparison",
    "OracleQuestion",
    "Subject",
    "check_activation",
    "check_estimator",
    "check_loss",
    "check_relaxation",
    "compare_with_oracle",
    "oracle_question",
    "subjects",
]
