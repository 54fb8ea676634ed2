"""Branch and bound over the signs of pre-activations: what it closes is proved, whatever is left is open.

`root` bounds the whole box and says what may be split; `subdomains` are what is open, `bounding` bounds children in
batches, `branching` chooses what to split, `leaves` decides subdomains in which nothing is left to split by linear
programming, and `search` leads all of them until everything is closed, a counterexample is met, or time is over.
`inputs` splits boxes of inputs instead, where these are few; `whole` begins either search, `pool` keeps what is open.
"""
