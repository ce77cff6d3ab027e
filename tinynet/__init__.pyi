"""Where each public name lives, for editors and type checkers: at run time a name is loaded on first use."""

from . import data as data
from . import datasets as datasets
from . import functional as functional
from . import kernels as kernels
from . import nn as nn
from . import optim as optim
from . import utils as utils
from .checkpoints import load as load
from .checkpoints import save as save
from .checks import gradcheck as gradcheck
from .films import Recorder as Recorder
from .films import film as film
from .functional import logsumexp as logsumexp
from .graph import detect_anomaly as detect_anomaly
from .graph import grad as grad
from .graph import no_grad as no_grad
from .graph import textbook as textbook
from .kernels import get_num_threads as get_num_threads
from .kernels import set_num_threads as set_num_threads
from .pages import walkthrough as walkthrough
from .pictures import draw as draw
from .plan import capture as capture
from .program import compile as compile
from .tensors import Generator as Generator
from .tensors import Tensor as Tensor
from .tensors import arange as arange
from .tensors import cat as cat
from .tensors import empty as empty
from .tensors import empty_like as empty_like
from .tensors import float32 as float32
from .tensors import float64 as float64
from .tensors import from_numpy as from_numpy
from .tensors import full as full
from .tensors import full_like as full_like
from .tensors import int64 as int64
from .tensors import linspace as linspace
from .tensors import manual_seed as manual_seed
from .tensors import maximum as maximum
from .tensors import minimum as minimum
from .tensors import ones as ones
from .tensors import ones_like as ones_like
from .tensors import rand as rand
from .tensors import rand_like as rand_like
from .tensors import randint as randint
from .tensors import randn as randn
from .tensors import randn_like as randn_like
from .tensors import randperm as randperm
from .tensors import stack as stack
from .tensors import tensor as tensor
from .tensors import where as where
from .tensors import zeros as zeros
from .tensors import zeros_like as zeros_like
from .train import fit as fit
from .train import summary as summary
from .value import Value as Value
from .words import explain as explain

__version__: str
__all__: list[str]

def __dir__() -> list[str]: ...
