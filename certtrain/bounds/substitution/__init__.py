"""What relaxations are made of that carry rows back.

`preactivation` bounds hidden layers and relaxes activations in order, `specification` merges a specification into the
last affine layer, `rows_of_spec` bounds its rows in the end. Who carries rows is an executor's business.
"""
