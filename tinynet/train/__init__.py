from .checkpoints import load, save  # noqa: F401
from .fit import *  # noqa: F403
from .plans import capture  # noqa: F401
