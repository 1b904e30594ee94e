"""What all pools need from the module that they replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cnnbench.errors import Unsupported
from cnnbench.lazy import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Where a pool looks.

    Attributes:
        kernel, stride, padding: height and width, pixels.
        ceil_mode: a window that reaches past the end counts too.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    ceil_mode: bool

    @property
    def shrinks(self) -> bool:
        """Whether any pixel's place is skipped."""
        return self.stride != (1, 1)

    def require_reach(self) -> None:
        """Refuse windows whose last, in ``ceil_mode``, may begin past the image.

        Pools drop such a window, convolutions would not.

        Raises:
            Unsupported: there may be such.
        """
        if self.ceil_mode and any(s > k - p for k, s, p in zip(self.kernel, self.stride, self.padding, strict=True)):
            raise Unsupported(
                f"a pool with ceil_mode, kernel {self.kernel} and stride {self.stride} may end in windows outside of "
                "the image, which a convolution can't leave out"
            )


def window_of(pool: nn.Module) -> Window | None:
    """The window of a pool, None for an adaptive one, which has none.

    Raises:
        Unsupported: its windows can't be had by another pool.
    """
    if isinstance(pool, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return None
    known = cast("Any", pool)
    if isinstance(pool, nn.FractionalMaxPool2d):
        raise Unsupported("FractionalMaxPool2d draws its windows at random, which no other pool does")
    if _pair(getattr(known, "dilation", 1)) != (1, 1):
        raise Unsupported(f"{type(pool).__name__} with dilation {known.dilation} has windows with holes")
    if getattr(known, "return_indices", False):
        raise Unsupported(f"{type(pool).__name__} with return_indices says where its maxima are: only it can")
    kernel = _pair(known.kernel_size)
    stride = kernel if known.stride is None else _pair(known.stride)
    return Window(kernel, stride, _pair(getattr(known, "padding", 0)), bool(known.ceil_mode))


def cells_of(pool: nn.Module) -> tuple[int | None, int | None] | None:
    """Height and width of an adaptive pool's output, None within it meaning the input's; None for a window pool.

    Raises:
        Unsupported: it also returns the places of its maxima.
    """
    if not isinstance(pool, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return None
    if getattr(pool, "return_indices", False):
        raise Unsupported(f"{type(pool).__name__} with return_indices says where its maxima are: only it can")
    size = cast("int | Sequence[int | None] | None", pool.output_size)
    if size is None or isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def _pair(size: int | Sequence[int]) -> Pair:
    if isinstance(size, int):
        return size, size
    height, width = size if len(size) > 1 else (size[0], size[0])
    return height, width
