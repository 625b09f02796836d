"""Warnings about ambiguous annotations: how many there are, how they are read, and the option that reads them otherwise."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

MAX_CLASSES = 100  # a property with more values is no class
# What happens to one object, and to several.
_CLIPPED = (
    "object extends beyond its image and is clipped at its edges",
    "objects extend beyond their image and are clipped at its edges",
)
_SWAPPED = ("box has swapped corners, which are put in order", "boxes have swapped corners, which are put in order")
ROTATED = (
    "rotated box became a polygon, which is trained as a mask",
    "rotated boxes became polygons, which are trained as masks",
)
_OPEN = ("shape that encloses no area is left out", "shapes that enclose no area are left out")

_BACKGROUND = ("shape labelled as background is left out", "shapes labelled as background are left out")


@dataclass
class Tally:
    """The places of annotations that a reader changes or leaves out, which it warns of when all are read. Threads may share it.

    Attributes:
        clipped: objects that extend beyond their image by rounding, and are clipped.
        swapped: boxes whose corners are swapped, such as xmin above xmax.
        rotated: rotated boxes that became polygons.
        open_shapes: shapes that enclose no area, such as "line", and are left out.
        background: shapes labelled as background, which are left out.
    """

    clipped: list[str] = field(default_factory=list)
    swapped: list[str] = field(default_factory=list)
    rotated: list[str] = field(default_factory=list)
    open_shapes: list[str] = field(default_factory=list)
    background: list[str] = field(default_factory=list)

    def warn(self, source: Path) -> None:
        """Logs one warning for each kind that occurred."""
        for places, (one, several) in (
            (self.clipped, _CLIPPED),
            (self.swapped, _SWAPPED),
            (self.rotated, ROTATED),
            (self.open_shapes, _OPEN),
            (self.background, _BACKGROUND),
        ):
            if places:
                logger.warning("%s: %s, such as %s", source, plural(len(places), one, several), min(places))


def check_rectangles(rectangles: str, source: Path) -> None:
    """Checks the option ``rectangles``.

    Raises:
        InputError: it is neither "masks" nor "boxes".
    """
    if rectangles not in ("masks", "boxes"):
        raise InputError(f"{source}: `rectangles` is {rectangles!r}, expected 'masks' or 'boxes'")


def warn_of_rectangles(count: int, num_objects: int, source: Path) -> None:
    """Warns that drawn rectangles are trained as masks, if there are any."""
    if count:
        one, several = "is a drawn rectangle, trained as a mask", "are drawn rectangles, trained as masks"
        logger.warning(
            '%s: %d of %s %s; add @rectangles:boxes to the string of the data set (or rectangles="boxes") to read them as boxes',
            source,
            count,
            plural(num_objects, "object"),
            one if count == 1 else several,
        )


def warn_of_unlabelled(images: Sequence[Path], source: Path) -> None:
    """Warns that images have no labels and are left out, if any."""
    if images:
        logger.warning(
            "%s: left out %s without labels, such as %s", source, plural(len(images), "image"), images[0].name
        )


def warn_of_classes(values: Counter[str], attribute: str, source: Path) -> None:
    """Warns that objects become one class, though a property that is not used has several values, which may be classes."""
    # A property whose many values all differ is a name or a number of the object.
    if 1 < len(values) <= MAX_CLASSES and not 10 < len(values) == values.total():
        counts = [f"{value} ({count})" for value, count in values.most_common()]
        logger.warning(
            "%s: all objects become one class, but their property %r is %s; add @attribute:%s to the string of the data set "
            "(or attribute=%r) if it holds the class",
            source,
            attribute,
            short_list(counts),
            attribute,
            attribute,
        )
