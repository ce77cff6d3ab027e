from .program import *  # noqa: F403
