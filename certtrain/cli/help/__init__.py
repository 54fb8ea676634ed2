"""What the command says of itself: the help page, the reference, published settings, words that complete a line.

All of it is made from the files under conf/, the schema and docstrings. Imports `configuration` and loads no torch.
"""
