"""The list of what a repair has changed and left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from maskrcnn_ext.common.text import plural


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        where: the record, such as ``image 3, annotation 17``.
        what: the change, in words.
        num_images: how many images were left out.
        num_objects: how many objects were left out.
    """

    where: str
    what: str
    num_images: int = 0
    num_objects: int = 0

    def __str__(self) -> str:
        """Returns the change in one line."""
        return f"{self.where}: {self.what}"


def describe_losses(changes: Iterable[Change]) -> list[str]:
    """Returns one line for each reason for which images or objects were left out, with their counts and the first of them.

    Example:
        >>> describe_losses([Change("image 1", "left out", 1, 3), Change("image 2", "left out", 1), Change("image 4", "turned")])
        ['2 images, 3 objects: left out, such as image 1']
    """
    by_reason: dict[str, list[Change]] = {}
    for change in changes:
        if change.num_images or change.num_objects:
            by_reason.setdefault(change.what, []).append(change)
    lines = []
    for what, lost in by_reason.items():
        images, objects = sum(one.num_images for one in lost), sum(one.num_objects for one in lost)
        counts = [*([plural(images, "image")] if images else []), *([plural(objects, "object")] if objects else [])]
        lines.append(f"{', '.join(counts)}: {what}, such as {lost[0].where}")
    return lines
