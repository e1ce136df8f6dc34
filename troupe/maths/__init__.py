"""Pure functions on tensors and numbers: credit, losses, gradients, statistics, finance.

Floor 1: nothing here knows what a token, a bar or a board is, reads a config or keeps state. Each function states its
formula, its shapes and its paper; import the module that you need (`from troupe.maths import losses`).
"""
