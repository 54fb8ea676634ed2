"""Rows: linear forms in one operation's output, and how they are carried back to the input by tensor operations.

`reach` says which patch of a layer a row reads, `dense` and `patches` hold coefficients for a whole layer or a patch
(`products` has their two steps), `anchor` and `passage` what they pass through, `carry` takes them there by one rule
for each kind of operation. `selection` and `chunks` say which rows, and how many at a time; a `Descent` is all of them,
ready for an executor.
"""
