"""The optimisers' updates of one parameter, as formulas on plain numbers. `optimizers` compiles the same for arrays.

Each optimiser has two functions. `…_terms(…)` turns its settings and the number of the step t = 1, 2, … into the terms
of the formula; `…_update(p, g, state, …, *terms)` returns the new parameter and its new state. States begin at 0.
The rules are PyTorch's, so that trajectories agree.
"""

from math import sqrt


def sgd_terms(t, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """(lr, momentum, share of the gradient in the momentum, weight_decay, how much the momentum looks ahead)"""
    fresh = 1.0 if t == 1 else 1.0 - dampening
    return lr, momentum, fresh, weight_decay, 1.0 if nesterov else 0.0


def sgd_update(p, g, velocity, lr, momentum, fresh, weight_decay, nesterov):
    """velocity ← momentum · velocity + g; p ← p - lr · velocity (Nesterov: p - lr · (g + momentum · velocity))

    Robbins and Monro (1951), Polyak (1964), Sutskever et al. (2013).
    """
    g = g + weight_decay * p
    velocity = momentum * velocity + fresh * g
    step = g + momentum * velocity if nesterov != 0 else velocity
    return p - lr * step, velocity


def plain_sgd_update(p, g, lr, weight_decay):
    """p ← p - lr · (g + weight_decay · p)"""
    return p - lr * (g + weight_decay * p)


def adam_terms(t, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """(lr / (1 - β₁ᵗ), β₁, 1 - β₁, β₂, 1 - β₂, eps, 1 / √(1 - β₂ᵗ), weight_decay)"""
    return (lr / (1.0 - beta1 ** t), beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, 1.0 / sqrt(1.0 - beta2 ** t),
            weight_decay)


def adam_update(p, g, m, v, rate, beta1, rest1, beta2, rest2, eps, correction, weight_decay):
    """m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; p ← p - lr · m̂ / (√v̂ + eps), where m̂ = m / (1 - β₁ᵗ) and
    v̂ = v / (1 - β₂ᵗ) undo the bias towards 0 at which m and v began. Kingma and Ba (2015).
    """
    g = g + weight_decay * p
    m = beta1 * m + rest1 * g
    v = beta2 * v + rest2 * g * g
    return p - rate * m / (sqrt(v) * correction + eps), m, v


def adamw_terms(t, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    """Adam's terms, with lr · weight_decay in the place of weight_decay."""
    return (*adam_terms(t, lr, beta1, beta2, eps)[:-1], lr * weight_decay)


def adamw_update(p, g, m, v, rate, beta1, rest1, beta2, rest2, eps, correction, decay):
    """Adam, except that the weight decay acts on the parameter itself: p ← p - lr · weight_decay · p first.
    Loshchilov and Hutter (2019).
    """
    m = beta1 * m + rest1 * g
    v = beta2 * v + rest2 * g * g
    return p - decay * p - rate * m / (sqrt(v) * correction + eps), m, v


def rmsprop_terms(t, lr, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0):
    """(lr, α, 1 - α, eps, weight_decay, momentum)"""
    return lr, alpha, 1.0 - alpha, eps, weight_decay, momentum


def rmsprop_update(p, g, square, velocity, lr, alpha, rest, eps, weight_decay, momentum):
    """square ← α square + (1 - α) g²; velocity ← momentum · velocity + g / (√square + eps); p ← p - lr · velocity

    Hinton, Neural Networks for Machine Learning, lecture 6 (2012).
    """
    g = g + weight_decay * p
    square = alpha * square + rest * g * g
    velocity = momentum * velocity + g / (sqrt(square) + eps)
    return p - lr * velocity, square, velocity


def rmsprop_centered_update(p, g, square, mean, velocity, lr, alpha, rest, eps, weight_decay, momentum):
    """RMSprop with the variance square - mean² in the place of the square; mean ← α mean + (1 - α) g. Graves (2013)."""
    g = g + weight_decay * p
    square = alpha * square + rest * g * g
    mean = alpha * mean + rest * g
    velocity = momentum * velocity + g / (sqrt(square - mean * mean) + eps)
    return p - lr * velocity, square, mean, velocity
