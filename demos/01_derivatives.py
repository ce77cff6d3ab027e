"""Lesson 1: a derivative is what happens when you nudge a number, and a graph finds all of them at once."""

# %% [markdown]
# # What a derivative is
# Nudge x by a small h and see how much f changes: the change, divided by h, is the derivative. As h shrinks the answer
# settles, until h is so small that rounding takes over.

# %%
from easel import picture

from tinynet import Value, draw, explain, grad, walkthrough


def f(x):
    return 3 * x**2 - 4 * x + 5


print("f(x) = 3x² - 4x + 5 at x = 3; the textbook says f'(x) = 6x - 4 = 14")
for h in (1.0, 0.1, 0.001, 1e-6, 1e-13):
    print(f"  h = {h:<6g}  (f(x+h) - f(x)) / h = {(f(3 + h) - f(3)) / h:.6f}")

# %% [markdown]
# # The graph remembers
# A `Value` is a number that remembers how it was made. Every operation knows its own small derivative (the page of
# calculus in `tinynet/value.py`); the chain rule multiplies them along the edges, from the result back to the leaves.

# %%
x = Value(3.0, label="x")
y = f(x)
y.label = "y"
y.backward()
print(f"\nThe graph says: y = {y.data}, dy/dx = {x.grad}  (no h, no rounding to fear)")

# %% [markdown]
# # Many inputs, one walk
# Nudging costs one more evaluation for every input. The walk backwards gives all the derivatives in one go: this is why
# networks with a billion weights can learn.

# %%
a, b = Value(-2.0, label="a"), Value(3.0, label="b")
f_ab = (a * b) * (a + b)
f_ab.label = "f"
f_ab.backward()
print(f"\nf = (a·b)·(a+b) at a = -2, b = 3: f = {f_ab.data}")
h = 1e-6
nudged = (((-2 + h) * 3) * (-2 + h + 3) - f_ab.data) / h
print(f"  df/da = {a.grad}   by nudging: {nudged:.4f}")
print(f"  df/db = {b.grad}")
draw(f_ab, derivatives=True).save(picture("01_graph.svg"))

# %% [markdown]
# `a` is used twice, in the product and in the sum, so two edges leave it, and what comes back along both is added up.

# %%
print("  a is used twice; its gradient is the sum of what comes back along both edges: 3·1 + 1·(-6) = -3")

# %% [markdown]
# # A derivative can be differentiated again
# With `create_graph=True` the derivative is itself a graph: draw it, or differentiate it once more.

# %%
x = Value(2.0, label="x")
y = x**3
order = 1
print("\ny = x³ at x = 2 and its derivatives:")
while order <= 3:
    (y,) = grad(y, [x], create_graph=True)
    print(f"  of order {order}: {y.data:g}")
    order += 1
x = Value(2.0, label="x")
(slope,) = grad(x**3, [x], create_graph=True)
slope.label = "d(x³)/dx"
slope.backward()
print(f"  its graph, walked backwards, gives the second derivative: {x.grad:g}")
draw(slope).save(picture("01_derivative_as_graph.svg"))

# %% [markdown]
# # Downhill
# Follow the derivative downhill in small steps, and f becomes small. That is all of training.

# %%
x = Value(-2.0, label="x")
print("\nRolling down f(x) = 3x² - 4x + 5, which is smallest at x = 2/3:")
for step in range(16):
    y = f(x)
    if step % 5 == 0:
        print(f"  step {step:2}: x = {x.data:7.4f}, f = {y.data:8.4f}")
    x.zero_grad()
    y.backward()
    x.data -= 0.1 * x.grad

# %% [markdown]
# # Step by step
# `explain` says every step of the walk in words, forward and backward, with its numbers: each line can be computed by
# hand. `walkthrough` makes a page of them. Open it in a browser and press the right arrow key; tick "Guess the sign"
# and say what a gradient will be before you see it; then change a number, and watch what becomes of the others. (In a
# notebook the page shows itself where it is the last expression of a cell.)

# %%
print("\nf = (a·b)·(a+b), step by step:")
print(explain(f_ab))
walkthrough(f_ab, "f = (a·b)·(a+b)").save(picture("01_step_through.html"))
print("  … a page to step through: open it in a browser")
