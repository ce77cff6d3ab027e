"""The layers. Each is written once and runs on both engines: `model.to("scalar")`, `model.to("tensor")`."""

from . import functional, init, utils
from .activations import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, Softmax, Softplus, Tanh
from .attention import MultiheadAttention, PositionalEncoding
from .convolution import AvgPool2d, Conv2d, MaxPool2d
from .dense import MLP, Dropout, Embedding, Flatten, Identity, Linear, Perceptron
from .losses import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, L1Loss, MSELoss, NLLLoss
from .module import Module, ModuleDict, ModuleList, Parameter, Sequential
from .normalization import BatchNorm1d, BatchNorm2d, LayerNorm
from .recurrent import GRU, LSTM, RNN
from .transformer import GPT, TransformerEncoderLayer

__all__ = [
    "AvgPool2d", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d", "Conv2d", "CrossEntropyLoss",
    "Dropout", "Embedding", "Flatten", "GELU", "GPT", "GRU", "Identity", "L1Loss", "LSTM", "LayerNorm", "LeakyReLU",
    "Linear", "LogSoftmax", "MLP", "MSELoss", "MaxPool2d", "Module", "ModuleDict", "ModuleList", "MultiheadAttention",
    "NLLLoss", "Parameter", "Perceptron", "PositionalEncoding", "RNN", "ReLU", "Sequential", "Sigmoid", "Softmax",
    "Softplus", "Tanh", "TransformerEncoderLayer", "functional", "init", "utils",
]
