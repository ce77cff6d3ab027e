"""Losses."""

import numpy as np

from .. import kernels
from ..errors import check_choice, check_int
from ..graph import mode
from ..kernels import launch
from ..tensors import Tensor, cast, contiguous, empty_array
from .activations import log_softmax, softplus
from .dense import check_indices, check_range
from .dispatch import as_constant, as_numpy, as_operand, check_floats, compute, detach, fused_by

INT64 = np.dtype(np.int64)


def reduced(losses, reduction):
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def check_reduction(name, reduction):
    if reduction not in ("mean", "sum", "none"):
        check_choice(name, "reduction", reduction, ("mean", "sum", "none"))


def same_shapes(name, input, target, reduction):
    """Both on one engine and of one shape: a loss that broadcasts (n, 1) against (n) is a classic silent mistake."""
    check_reduction(name, reduction)
    input = as_operand(input)
    check_floats(name, input)
    if not isinstance(input, Tensor):
        target = as_numpy(target)
    elif isinstance(target, Tensor):
        target = target if target.dtype == input.dtype else target.to(input.dtype)
    else:
        target = as_operand(target, input, "target")
    if input.shape != target.shape:
        raise ValueError(f"{name}: input has shape {input.shape} and target {target.shape}; they must be the same")
    if reduction == "mean" and 0 in input.shape:
        raise ValueError(f"{name}: the batch is empty, nothing to average")
    return input, target


def loss_of_pairs(kernel, kernel_backward, x, t, reduction, target_vjp):
    """(y, vjps) of a loss of predictions x and targets t. The kernels multiply by `factor`, 1/n for a mean of n."""
    factor = 1.0 / x.size if reduction == "mean" else 1.0
    y = empty_array(x.shape if reduction == "none" else (), x.dtype)
    flat, flat_t = contiguous(x).ravel(), contiguous(t).ravel()
    launch(kernel, y.ravel(), flat, flat_t, factor)

    def vjps(g, needs):
        g, dx = contiguous(g).ravel(), empty_array(x.shape, x.dtype)
        launch(kernel_backward, dx.ravel(), g, flat, flat_t, factor)
        return dx, target_vjp(g, flat, dx, factor) if needs[1] else None

    return y, vjps


def fused_mse_loss(input, target, reduction):
    """∂/∂input = 2 (input - target), over n for the mean; ∂/∂target = -∂/∂input."""
    return loss_of_pairs(kernels.losses.mse, kernels.losses.mse_backward, input, target, reduction,
                         lambda g, x, dx, factor: compute(lambda dt, dx: np.negative(dx, dt), [dx], dx)[0])


@fused_by(fused_mse_loss)
def squared_errors(input, target, reduction):
    d = input - target
    return reduced(d * d, reduction)


def mse_loss(input, target, reduction="mean"):
    """(input - target)² of every element, and their mean (or "sum", or "none")."""
    input, target = same_shapes("mse_loss", input, target, reduction)
    return squared_errors(input, target, reduction)


def l1_loss(input, target, reduction="mean"):
    """|input - target| of every element, and their mean (or "sum", or "none")."""
    input, target = same_shapes("l1_loss", input, target, reduction)
    return reduced(abs(input - target), reduction)


# -------------------------------------------------------------------------------------------------- losses of classes

def fused_cross_entropy(logits, target, reduction, ignore_index):
    """∂/∂xⱼ = softmax(x)ⱼ - [j = target], over n for the mean."""
    target, probabilities = contiguous(target), empty_array(logits.shape, logits.dtype)
    y = empty_array(len(logits) if reduction == "none" else (), logits.dtype)
    mean = reduction == "mean"
    launch(kernels.losses.cross_entropy, y.ravel(), probabilities, contiguous(logits), target, ignore_index, mean)
    launch(check_targets, target, logits.shape[1], ignore_index, "cross_entropy", y)
    return y, lambda g, needs: compute(kernels.losses.cross_entropy_backward, [logits], contiguous(g).ravel(),
                                       probabilities, target, ignore_index, mean)


@fused_by(fused_cross_entropy, reads=[])
def softmax_nll(logits, target, reduction, ignore_index):
    return nll("cross_entropy", log_softmax(logits, 1), target, reduction, ignore_index)


def nll(name, log_probabilities, target, reduction, ignore_index):
    """-log p of the class that each target names; the mean is that of the rows that are not ignored."""
    launch(check_targets, target, log_probabilities.shape[1], ignore_index, name)
    kept, classes = empty_array(target.shape, bool), empty_array(target.shape, np.int64)
    launch(np.not_equal, target, ignore_index, kept)
    launch(np.multiply, target, kept, classes)
    losses = -log_probabilities[np.arange(len(target)), classes]
    if mode.plan is None and kept.all():
        return reduced(losses, reduction)
    weights = as_constant(kept, losses)
    losses = losses * weights
    return losses.sum() / weights.sum() if reduction == "mean" else reduced(losses, reduction)


def cross_entropy(input, target, reduction="mean", ignore_index=-100):
    """-log softmax(input)[target], averaged over the batch: input (n, classes) logits, target (n) class indices.

    A single example, input (classes) and target (), gives its loss. Where the target is `ignore_index` there is no
    loss, and the mean is that of the others: so texts of different lengths share a batch.

    >>> from tinynet import tensor
    >>> round(cross_entropy(tensor([[0.0, 0.0]]), [1]).item(), 4)     # log 2
    0.6931
    """
    return softmax_nll(*of_classes("cross_entropy", input, target, reduction, ignore_index))


def nll_loss(input, target, reduction="mean", ignore_index=-100):
    """-input[target], averaged over the batch: what cross_entropy does, of log_softmax(logits).

    >>> logits = [[1.0, 2.0, 0.5]]
    >>> nll_loss(log_softmax(logits), [1]).item() == cross_entropy(logits, [1]).item()
    True
    """
    return nll("nll_loss", *of_classes("nll_loss", input, target, reduction, ignore_index))


def of_classes(name, input, target, reduction, ignore_index):
    """The arguments of a loss of class indices, validated, as (n, classes) and (n) int64."""
    check_reduction(name, reduction)
    if ignore_index != -100:
        ignore_index = check_int(name, "ignore_index", ignore_index, -2**63, 2**63 - 1)
    input, target = as_operand(input), as_numpy(target)
    check_floats(name, input)
    check_indices(name, "targets", target)
    if input.ndim == 1 and target.ndim == 0:
        input, target = input.reshape(1, -1), target.reshape(1)
        reduction = "sum" if reduction == "none" else reduction
    if input.ndim != 2 or target.ndim != 1 or len(input) != len(target) or not input.shape[1]:
        raise ValueError(f"{name}: expected input (n, classes) and target (n), got {tuple(input.shape)} and "
                         f"{target.shape}")
    if reduction == "mean" and not len(target):
        raise ValueError(f"{name}: the batch is empty, nothing to average")
    return input, cast(target, INT64), reduction, ignore_index


def check_targets(target, classes, ignore_index, name, loss=None):
    """See `check_range`. The kernel answers a target outside with a loss that is NaN: only then look for it."""
    if loss is None or loss.size != 1 or loss != loss:
        check_range(target[target != ignore_index], classes, f"{name}: target")


# -------------------------------------------------------------------------------------------- losses of probabilities

def log_probability(p, q):
    """log p, at least -100, whose derivative is q / max(p q, 10⁻¹²) with q = 1 - p, as in PyTorch.

    That is 1 / p, except at the ends, where it is the line of that derivative through (p, log p).
    """
    at, q = detach(p), detach(q)
    inside = at * q > 1e-12
    if mode.plan is None and inside.all():
        return np.log(p)
    certain = at == 0
    lowest = np.maximum(np.log(at + certain) - 1000.0 * certain, -100.0)
    return np.where(inside, np.log(np.where(inside, p, 0.0 * p + 0.5)), (p - at) * (q * 1e12) + lowest)


def binary_cross_entropy(input, target, reduction="mean"):
    """-t log p - (1 - t) log(1 - p) for probabilities p and targets t in [0, 1]; the logarithms at least -100.

    Of p = sigmoid(x), `binary_cross_entropy_with_logits(x, t)` is the same without the loss of digits near 0 and 1.

    >>> round(binary_cross_entropy([0.5, 0.5], [0.0, 1.0]).item(), 4)     # log 2
    0.6931
    """
    name = "binary_cross_entropy"
    input, target = same_shapes(name, input, target, reduction)
    launch(check_probabilities, name, as_numpy(detach(input)))
    q = 1.0 - input
    return reduced(-(target * log_probability(input, q) + (1.0 - target) * log_probability(q, input)), reduction)


def check_probabilities(name, p):
    """ValueError where an element is outside [0, 1] (a nan passes)."""
    wrong = (p < 0) | (p > 1)
    if wrong.any():
        raise ValueError(f"{name}: expected probabilities from 0 to 1 (of a sigmoid), got {p[wrong].flat[0]}")


def fused_binary_cross_entropy_with_logits(input, target, reduction):
    """∂/∂x = sigmoid(x) - target, ∂/∂target = -x, over n for the mean."""
    return loss_of_pairs(kernels.losses.bce_with_logits, kernels.losses.bce_with_logits_backward, input, target,
                         reduction, lambda g, x, dx, factor: compute(write_products, [dx], g, x, -factor)[0])


def write_products(y, g, x, factor):
    np.multiply(g, x, y.reshape(-1))
    np.multiply(y, factor, y)


@fused_by(fused_binary_cross_entropy_with_logits)
def logit_losses(input, target, reduction):
    return reduced(softplus(input) - input * target, reduction)


def binary_cross_entropy_with_logits(input, target, reduction="mean"):
    """-t log σ(x) - (1 - t) log(1 - σ(x)) = softplus(x) - x t, σ the sigmoid, for targets t in [0, 1]."""
    input, target = same_shapes("binary_cross_entropy_with_logits", input, target, reduction)
    return logit_losses(input, target, reduction)
