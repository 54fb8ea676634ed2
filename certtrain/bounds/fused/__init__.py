"""Back-substitution as one compiled call: rows never leave the core's own cache.

`substitute.c` carries a few rows at a time from the layer that they start in to the input (`steps.h`), and their
derivatives back (`adjoints.h`); both spend their time in one loop (`products.h`). `build` compiles it for this
processor when it is first needed and keeps the result; where that is not possible, on another device and for operations
that it does not know, the tensor operations of `bounds.rows` and `bounds.patches` do the same work. `program` makes the
steps from a chain of operations, and `call` runs them, for a population too.
"""

from certtrain.bounds.fused.build import compiled
from certtrain.bounds.fused.call import Job, Rows, substitute
from certtrain.bounds.fused.program import Program, chain, operands, translate
from certtrain.bounds.fused.steps import Operands

__all__ = ["Job", "Operands", "Program", "Rows", "chain", "compiled", "operands", "substitute", "translate"]
