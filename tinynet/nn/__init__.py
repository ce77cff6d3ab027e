"""The layers. Each is written once and runs on both engines: `model.to("scalar")`, `model.to("tensor")`."""

from . import functional, init, utils
from .attention import GPT, MultiheadAttention, PositionalEncoding, TransformerEncoderLayer
from .convolution import AvgPool2d, BatchNorm1d, BatchNorm2d, Conv2d, MaxPool2d
from .dense import (
    GELU,
    MLP,
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    L1Loss,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MSELoss,
    NLLLoss,
    Perceptron,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from .module import Module, ModuleDict, ModuleList, Parameter, Sequential
from .recurrent import GRU, LSTM, RNN

__all__ = [
    "AvgPool2d", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d", "Conv2d", "CrossEntropyLoss",
    "Dropout", "Embedding", "Flatten", "GELU", "GPT", "GRU", "Identity", "L1Loss", "LSTM", "LayerNorm", "LeakyReLU",
    "Linear", "LogSoftmax", "MLP", "MSELoss", "MaxPool2d", "Module", "ModuleDict", "ModuleList", "MultiheadAttention",
    "NLLLoss", "Parameter", "Perceptron", "PositionalEncoding", "RNN", "ReLU", "Sequential", "Sigmoid", "Softmax",
    "Softplus", "Tanh", "TransformerEncoderLayer", "functional", "init", "utils",
]
