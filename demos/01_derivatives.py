"""Lesson 1: what a derivative is, and how one backward pass through a graph computes all of them."""

# %% [markdown]
# # The derivative
# Change x by a small h and see how much f changes: the change divided by h is a **finite difference**, and its limit as
# h shrinks is the **derivative**. When h is too small, rounding errors dominate.

# %%
from easel import picture

from tinynet import Value, draw, explain, grad, walkthrough


def f(x):
    return 3 * x**2 - 4 * x + 5


print("f(x) = 3x² - 4x + 5 at x = 3; by the rules of calculus f'(x) = 6x - 4 = 14")
for h in (1.0, 0.1, 0.001, 1e-6, 1e-13):
    print(f"  h = {h:<6g}  (f(x+h) - f(x)) / h = {(f(3 + h) - f(3)) / h:.6f}")

# %% [markdown]
# # The computation graph
# A `Value` is a scalar that records its **computation graph**. Every operation has a **local derivative** (the
# derivative table in `tinynet/value.py`); the **chain rule** multiplies them along the edges, from the output back to
# the leaves.

# %%
x = Value(3.0, label="x")
y = f(x)
y.label = "y"
y.backward()
print(f"\nFrom the graph: y = {y.data}, dy/dx = {x.grad}  (exact: no h, no rounding of a difference)")

# %% [markdown]
# # Many inputs, one backward pass
# A finite difference costs one more evaluation for every input. The **backward pass** computes all derivatives, the
# **gradient**, at once: this is why networks with a billion weights can be trained.

# %%
a, b = Value(-2.0, label="a"), Value(3.0, label="b")
f_ab = (a * b) * (a + b)
f_ab.label = "f"
f_ab.backward()
print(f"\nf = (a·b)·(a+b) at a = -2, b = 3: f = {f_ab.data}")
h = 1e-6
difference = (((-2 + h) * 3) * (-2 + h + 3) - f_ab.data) / h
print(f"  df/da = {a.grad}   by finite difference: {difference:.4f}")
print(f"  df/db = {b.grad}")
draw(f_ab, derivatives=True).save(picture("01_graph.svg"))

# %% [markdown]
# `a` is used twice, in the product and in the sum, so two edges leave it, and the gradients along both are added.

# %%
print("  a is used twice; its gradient is the sum of the contributions of both edges: 3·1 + 1·(-6) = -3")

# %% [markdown]
# # Higher derivatives
# With `create_graph=True` the derivative is itself a graph: draw it, or differentiate it again.

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
(dy_dx,) = grad(x**3, [x], create_graph=True)
dy_dx.label = "d(x³)/dx"
dy_dx.backward()
print(f"  a backward pass through its graph gives the second derivative: {x.grad:g}")
draw(dy_dx).save(picture("01_derivative_as_graph.svg"))

# %% [markdown]
# # Gradient descent
# Move x against the derivative in small steps, and f decreases. Training a network is this **gradient descent** on its
# loss.

# %%
x = Value(-2.0, label="x")
print("\nGradient descent on f(x) = 3x² - 4x + 5, whose minimum is at x = 2/3:")
for step in range(16):
    y = f(x)
    if step % 5 == 0:
        print(f"  step {step:2}: x = {x.data:7.4f}, f = {y.data:8.4f}")
    x.zero_grad()
    y.backward()
    x.data -= 0.1 * x.grad

# %% [markdown]
# # The steps of the backward pass
# `explain` describes every step in words, forward and backward, with its numbers: each line can be computed by hand.
# `walkthrough` makes a page of them. Open it in a browser and press the right arrow key; tick "Guess the sign" and
# predict a gradient before it is shown; then change a number, and see how the others change. (A notebook shows the page
# if it is the last expression of a cell.)

# %%
print("\nf = (a·b)·(a+b), step by step:")
print(explain(f_ab))
walkthrough(f_ab, "f = (a·b)·(a+b)").save(picture("01_step_through.html"))
print("  … an interactive page: open it in a browser")
