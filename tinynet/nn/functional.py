"""The functions of a network, under PyTorch's path: `import tinynet.nn.functional as F`. See ../functional."""

from ..functional import *  # noqa: F403
