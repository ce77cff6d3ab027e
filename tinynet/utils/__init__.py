"""PyTorch's path to the data: `from tinynet.utils.data import DataLoader`. See ../data.py."""

from . import data as data
