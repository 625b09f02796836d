"""Splits images into train, val and test. The split depends on the seed and the names, not on the order or folder of the images."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.errors import InputError

# The key for the number of images among the counts of classes.
_IMAGES = "images"


@dataclass(frozen=True)
class _Unit:
    """A group of images that must not be separated.

    Attributes:
        members: indices of the images.
        counts: the number of images (``_IMAGES``), and the number of images with an object of each class.
        order: a pseudo-random sort key.
    """

    members: list[int]
    counts: Counter[Hashable]
    order: bytes


def split_images(
    records: Sequence[ImageRecord],
    groups: Sequence[str],
    shares: Mapping[str, float],
    *,
    seed: int = 0,
    stratify: bool = False,
) -> dict[str, list[int]]:
    """Splits images into parts.

    Stratification is the greedy iterative one of Sechidis et al. 2011 (doi:10.1007/978-3-642-23808-6_10): the rarest class is assigned
    first, each image to the part that lacks most of it.

    Args:
        records: the images.
        groups: the group of each image; images of one group get into the same part.
        shares: the share of the images for each part; they add up to 1.
        seed: of the split.
        stratify: whether each part also gets its share of the images of every class.

    Returns:
        The sorted indices of the records of each part.

    Raises:
        InputError: a part would be empty.

    Example:
        >>> records = [ImageRecord(f"{index}.jpg", index, 10, 10) for index in range(4)]
        >>> parts = split_images(records, ["a", "b", "c", "d"], {"train": 0.75, "val": 0.25})
        >>> len(parts["train"]), len(parts["val"])
        (3, 1)
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    units = []
    for group, indices in members.items():
        counts: Counter[Hashable] = Counter({_IMAGES: len(indices)})
        if stratify:
            counts.update(kind for index in indices for kind in {a.category for a in records[index].annotations})
        units.append(
            _Unit(indices, counts, hashlib.blake2b(f"{seed}/{group}".encode("utf-8", "surrogatepass")).digest())
        )

    totals: Counter[Hashable] = Counter()
    for unit in units:
        totals.update(unit.counts)
    lacking = {part: {kind: share * total for kind, total in totals.items()} for part, share in shares.items()}
    parts: dict[str, list[int]] = {part: [] for part in shares}
    with_kind: dict[Hashable, list[_Unit]] = {kind: [] for kind in totals}
    for unit in units:
        for kind in unit.counts:
            with_kind[kind].append(unit)
    assigned: set[bytes] = set()
    left = dict(totals)
    while left:
        # The number of images comes last, since no class has more. Names break ties, so that the order is deterministic.
        kind = min(left, key=lambda kind: (kind == _IMAGES, left[kind], str(kind)))
        del left[kind]
        # Large groups first: later, smaller ones even out the differences.
        for unit in sorted(with_kind[kind], key=lambda unit: (-unit.counts[kind], -unit.counts[_IMAGES], unit.order)):
            if unit.order in assigned:
                continue
            assigned.add(unit.order)
            # A full part gets no more images; otherwise the largest part would take every rare class.
            part = max(
                parts, key=lambda part: (lacking[part][_IMAGES] > 0, lacking[part][kind], lacking[part][_IMAGES])
            )
            parts[part] += unit.members
            for counted, number in unit.counts.items():
                lacking[part][counted] -= number
                if counted in left:
                    left[counted] -= number
    for part, indices in parts.items():
        if not indices:
            raise InputError(f"{part} gets none of {plural(len(members), 'group')} of images; give it a larger share")
        indices.sort()
    return parts


def group_names(names: Sequence[str], *, by: str, pattern: str | None = None) -> list[str]:
    r"""Returns the group of each image.

    Args:
        names: paths below the folder of the images.
        by: "image" for one group per image; "group" for the match of `pattern`, or the image's folder if it is None.
        pattern: a regular expression to search in the path. Its first bracket is the group; the whole match if it has no brackets.

    Raises:
        InputError: the pattern is not a regular expression, or does not match an image.

    Example:
        >>> group_names(["patient3_slice1.png", "patient3_slice2.png"], by="group", pattern=r"patient\d+")
        ['patient3', 'patient3']
    """
    if by == "image":
        return list(names)
    if pattern is None:
        return [PurePath(name).parent.as_posix() for name in names]
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise InputError(f"{pattern!r} is not a regular expression ({error})") from error
    groups = []
    for name in names:
        found = search(name)
        group = found and found[1 if found.re.groups else 0]
        if group is None:
            raise InputError(f"{pattern!r} finds no group in {name!r}")
        groups.append(group)
    return groups
