"""Back-substitution as one compiled call: a few rows at a time, all the way, so that memory does not grow with rows.

`substitute.c` carries rows from the layer that they start in to the input in one of two ways, between which
`bundling` chooses: side by side, one in each lane of a vector (`bundles.h`, products in `bundle_products.h`), or one
after the other with channels in the lanes (`steps.h`, products in `products.h`). Derivatives go back in either way
(`bundle_adjoints.h`, `adjoints.h`). `build` compiles it for this processor when it is first needed and keeps the
result; where that is not possible, on another device and for operations that it does not know, tensor operations do
the same work. `program` makes the steps from a chain of operations; `call` and `derivatives` run them, for a
population too, in torch's threads (`pool`), after `boundary` has compared every tensor with what will be read of it.
A call that takes long is made in pieces, between which Python hears signals (`task.run`); they change no bit of the
result.

`evaluate.c` is about points instead of rows: outputs and derivatives for attacks (`evaluation`), images in the lanes.
"""
