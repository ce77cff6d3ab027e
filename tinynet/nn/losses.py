"""Losses: each a Module around its function, with a `reduction` "mean", "sum" or "none"."""

from .. import functional as F
from ..errors import check_choice, check_int
from .module import Module


class Loss(Module):
    """The base of all losses: forward(input, target)."""

    def __init__(self, reduction="mean"):
        self.reduction = check_choice(type(self).__name__, "reduction", reduction, ("mean", "sum", "none"))


class MSELoss(Loss):
    """The mean squared error: functional.mse_loss."""

    def forward(self, input, target):
        return F.mse_loss(input, target, self.reduction)


class L1Loss(Loss):
    """The mean absolute error: functional.l1_loss."""

    def forward(self, input, target):
        return F.l1_loss(input, target, self.reduction)


class CrossEntropyLoss(Loss):
    """Cross-entropy of logits (n, classes) and class indices (n): functional.cross_entropy."""

    def __init__(self, reduction="mean", ignore_index=-100):
        super().__init__(reduction)
        self.ignore_index = check_int(type(self).__name__, "ignore_index", ignore_index)

    def forward(self, input, target):
        return F.cross_entropy(input, target, self.reduction, self.ignore_index)


class NLLLoss(CrossEntropyLoss):
    """The negative log-likelihood of log-probabilities (n, classes): functional.nll_loss."""

    def forward(self, input, target):
        return F.nll_loss(input, target, self.reduction, self.ignore_index)


class BCELoss(Loss):
    """Binary cross-entropy of probabilities: functional.binary_cross_entropy. Prefer BCEWithLogitsLoss of logits."""

    def forward(self, input, target):
        return F.binary_cross_entropy(input, target, self.reduction)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of logits: functional.binary_cross_entropy_with_logits."""

    def forward(self, input, target):
        return F.binary_cross_entropy_with_logits(input, target, self.reduction)
