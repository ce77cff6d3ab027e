"""PyTorch's path to the data: `from tinynet.utils.data import DataLoader`. See ../data/."""

from . import data as data
