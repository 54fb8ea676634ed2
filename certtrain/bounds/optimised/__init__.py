"""Bounds whose slopes (alpha) and split multipliers (beta) are chosen for every row, by ascent.

`region` holds the network on boxes, its activations between lines; `passes` carries rows back to the input and values
forward again, which gives a bound and its derivatives; `space` numbers what is free, `choice` is what rows chose of it,
and `ascent` improves that. `kernels` are the compiled parts, `hidden` makes pre-activation bounds of rows, which
`objectives` say. `collapsing` and `windows` make smaller networks that are the same for some rows, `ways` chooses among
these. `envelopes`, of the layers that `neurons` finds, take the place of upper lines, and `fitting` improves them. The
relaxation alpha_crown and branch and bound stand on this.
"""
