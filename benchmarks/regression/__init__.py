"""How long one thing takes, beside a limit or a peer in the same run: whoever changes the code looks here.

These look inside the protocols: they call the pieces of a round alone, with the sizes that a round would give them.
"""
