"""Datasets and mini-batches, under PyTorch's path: `from tinynet.utils.data import DataLoader`. See ../data/."""

from ..data import *  # noqa: F403
