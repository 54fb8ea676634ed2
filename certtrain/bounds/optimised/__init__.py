"""Bounds whose slopes (alpha) and split multipliers (beta) are chosen for every row, by ascent.

`region` holds the network on boxes, its activations between lines; `passes` carries rows back to the input and values
forward again, which gives a bound and its derivatives; `space` numbers what is free to choose, `ascent` improves it.
The relaxation alpha_crown and branch and bound stand on this.
"""
