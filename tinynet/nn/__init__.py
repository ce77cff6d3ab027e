"""The layers. Each is written once and runs on both engines: `model.to("scalar")`, `model.to("tensor")`."""

from . import functional, utils
from .attention import GPT, MultiheadAttention, PositionalEncoding, TransformerEncoderLayer
from .convolution import AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d
from .feedforward import (
    GELU,
    MLP,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Dropout,
    Embedding,
    Flatten,
    LayerNorm,
    Linear,
    MSELoss,
    Perceptron,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from .module import Module, ModuleList, Parameter, Sequential
from .recurrent import GRU, LSTM, RNN

__all__ = [
    "AvgPool2d", "BCEWithLogitsLoss", "BatchNorm2d", "Conv2d", "CrossEntropyLoss", "Dropout", "Embedding", "Flatten",
    "GELU", "GPT", "GRU", "LSTM", "LayerNorm", "Linear", "MLP", "MSELoss", "MaxPool2d", "Module", "ModuleList",
    "MultiheadAttention", "Parameter", "Perceptron", "PositionalEncoding", "RNN", "ReLU", "Sequential", "Sigmoid",
    "Softmax", "Softplus", "Tanh", "TransformerEncoderLayer", "functional", "utils",
]
