"""Where the names of points go, so that none lies on another or on a point."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Box(NamedTuple):
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether they have an area in common."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        """Whether it lies in the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


_SIDES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1))
_AWAY = (7.0, 14.0, 24.0)


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Iterable[Box],
    bounds: Box,
    near: int = len(_AWAY),
) -> list[Box | None]:
    """A box for each label, the first labels first, each as near to its point as there is room.

    Args:
        points: what the labels name, in pixels.
        sizes: width and height of the labels.
        obstacles: what no label may cover.
        bounds: what every label must lie in.
        near: how many distances to try, of three.

    Returns:
        None for a label that has no room.
    """
    taken = list(obstacles)
    placed: list[Box | None] = []
    for point, size in zip(points, sizes, strict=True):
        found = next(
            (box for box in _around(point, size, near) if box.within(bounds) and not any(map(box.meets, taken))), None
        )
        placed.append(found)
        if found is not None:
            taken.append(found)
    return placed


def _around(point: tuple[float, float], size: tuple[float, float], near: int) -> Iterable[Box]:
    (x, y), (width, height) = point, size
    for away in _AWAY[:near]:
        for across, down in _SIDES:
            left = x + across * away if across > 0 else x - away - width if across < 0 else x - width / 2
            shift = away if not across else 0.7 * away
            top = y + shift if down > 0 else y - shift - height if down < 0 else y - height / 2
            yield Box(left, top, left + width, top + height)
