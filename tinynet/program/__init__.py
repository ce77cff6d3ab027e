"""A graph of Values as a program: flattened into integer arrays, it runs over a whole batch at machine speed.

>>> from tinynet import Value
>>> from tinynet.program import compile
>>> x, w = Value(0.0, label="x"), Value(3.0, label="w")
>>> program = compile(w * x + 1, inputs=[x], parameters=[w])
>>> print(program)
%0 = parameter w
%1 = input x
%2 = mul %0, %1                 # w · x
%3 = constant 1.0
%4 = add %2, %3                 # %2 + 1
return %4
>>> program([[1.0], [2.0]])
array([4., 7.])
>>> program.backward([[1.0], [2.0]])    # the mean over the batch, and its gradients
5.5
>>> w.grad
1.5

    planner.py      the graph becomes two lists of instructions, one forward and one backward; nodes get registers
    rules.py        each rule of the derivative table becomes a few short loops over registers, compiled once per rule
    interpreter.py  one loop runs the instructions forward and backward, tile after tile of samples
    listing.py      the instructions as text
    program.py      `compile`, and the program that it returns

A *vector register* holds the values of one node for the samples of a tile, side by side, so that Numba makes vector
instructions of the loops. What does not depend on the inputs (the weights) is in a *scalar register*: one number.
A vector register is free again after its last use, and the next node gets it, so that a tile stays in the cache.

Sources: linear-scan register allocation, Poletto and Sarkar (1999); the gradient as a reversed program ("tape"),
Speelpenning (1980).
"""

from .program import Program, compile

__all__ = ["Program", "compile"]
