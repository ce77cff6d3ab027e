"""How a kernel is called: at once, and noted in the plan that is being captured."""

from collections.abc import Callable
from typing import Any

from ...graph import mode


class Kernel:
    """Something that chooses a concrete function for its arguments: `dispatch(args)` returns (function, arguments)."""

    __slots__ = ()

    def __call__(self, *args):
        function, args = self.dispatch(args)
        function(*args)


def launch(kernel: Callable[..., Any], *args: Any) -> None:
    """Call kernel(*args), and note the call where a plan is being captured. Any function that writes into its
    arguments is a kernel, NumPy's with `out` among them."""
    if isinstance(kernel, Kernel):
        kernel, args = kernel.dispatch(args)
    kernel(*args)
    if mode.plan is not None:
        mode.plan.steps.append((kernel, args))
