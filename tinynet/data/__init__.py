from .batches import *  # noqa: F403
