"""Exact answers about piecewise-linear networks, by mixed-integer programs on SciPy's HiGHS.

`affine` has affine forms of a program's columns, `program` what a program is, `encoding` makes one of a network and a
box, `solving` asks HiGHS; `question` is all margins of a batch. It is slow, and independent of every bound but the
pre-activation bounds that it starts from: what complete verifiers are compared with. SciPy's optimizers take half a
second to import, so this package is imported where it is used.
"""

from certtrain.certify.milp.encoding import check_encodable
from certtrain.certify.milp.question import Exact, Question, exact_minimum

__all__ = ["Exact", "Question", "check_encodable", "exact_minimum"]
