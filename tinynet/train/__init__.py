"""Training: `capture` a step, `fit` a model, `save` and `load` the run, and see what came of it."""

from .checkpoints import load, save
from .fit import EarlyStopping, accuracy, fit
from .history import History
from .model_table import summary
from .plans import capture

__all__ = ["EarlyStopping", "History", "accuracy", "capture", "fit", "load", "save", "summary"]
