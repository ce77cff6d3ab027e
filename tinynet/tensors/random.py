"""Random numbers: a stream for each thread, streams of one's own, and the state of a stream for checkpoints."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import check_int


class Stream:
    """Random numbers of one's own, made by `Generator()`.

    >>> from tinynet import Generator, randn
    >>> a, b = (randn(2, generator=Generator().manual_seed(1)) for _ in range(2))
    >>> (a == b).tolist()
    [True, True]
    """

    def __init__(self) -> None:
        self.stream = np.random.default_rng()

    def manual_seed(self, seed: int) -> Stream:
        """Begin anew with this seed, a non-negative integer."""
        self.stream = np.random.default_rng(check_int("manual_seed", "seed", seed, 0))
        return self


class Streams(threading.local):
    """The random numbers of tinynet: one stream in each thread, so that threads do not take numbers from one another.
    It may be a part of a checkpoint. `Generator()` gives a stream of one's own, for functions that take a `generator`.

    A thread's stream begins where `manual_seed` in the main thread last began, or anywhere where it was never called.

    >>> from tinynet import Generator, rand
    >>> before = Generator.state_dict(); a = rand(3)
    >>> Generator.load_state_dict(before); (a == rand(3)).tolist()
    [True, True, True]
    """

    seed: int | None = None

    def __init__(self) -> None:
        self.stream = np.random.default_rng(Streams.seed)

    def __call__(self) -> Stream:
        return Stream()

    def state_dict(self) -> Any:
        """The state of this thread's stream, as plain numbers."""
        return self.stream.bit_generator.state

    def load_state_dict(self, state: Any) -> None:
        """Go on from there; ValueError where this is no state of a stream."""
        self.validate_state_dict(state)()

    def validate_state_dict(self, state: Any) -> Callable[[], None]:
        """Validate a state, and return the function that loads it."""
        return functools.partial(setattr, self, "stream", stream_from("Generator", state))


Generator = Streams()


def stream_from(name: str, state: Any) -> np.random.Generator:
    """A stream of random numbers in this state."""
    stream = np.random.default_rng(0)
    try:
        stream.bit_generator.state = state
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
        raise ValueError(f"{name}.load_state_dict: expected the state of a stream of random numbers (PCG64), got "
                         f"{str(state)[:60]}") from None
    return stream


def manual_seed(seed: int) -> np.random.Generator:
    """Start the random numbers of this thread anew, so that a run can be repeated.

    Called in the main thread, it also says where the streams of threads begin that have not drawn a number yet.

    >>> from tinynet import manual_seed, rand
    >>> _ = manual_seed(0); a = rand(3)
    >>> _ = manual_seed(0); (a == rand(3)).tolist()
    [True, True, True]
    """
    seed = check_int("manual_seed", "seed", seed, 0)
    if threading.current_thread() is threading.main_thread():
        Streams.seed = seed
    Generator.stream = np.random.default_rng(seed)
    return Generator.stream


def check_generator(name: str, generator: Any) -> Stream | Streams:
    """The generator, or this thread's where it is None."""
    if generator is None:
        return Generator
    if not isinstance(getattr(generator, "stream", None), np.random.Generator):
        raise TypeError(f"{name}: expected generator to be a Generator() or None, got {type(generator).__name__}")
    return generator


def random_uniform(out: np.ndarray, generator: Stream | Streams = Generator) -> None:
    """Fill an array with uniform numbers from [0, 1), now and at each replay of a captured step."""
    generator.stream.random(out=out, dtype=out.dtype)


def random_normal(out: np.ndarray, generator: Stream | Streams = Generator) -> None:
    """Fill an array with standard normal numbers."""
    generator.stream.standard_normal(out=out, dtype=out.dtype)
