"""Divides images into train, val and test: for a seed always the same, whatever order they come in and wherever they lie."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.errors import InputError

# What counts in every unit, beside its classes.
_IMAGES = "images"


@dataclass(frozen=True)
class _Unit:
    """Images that stay together.

    Attributes:
        members: indices of the images.
        counts: how many they are (``_IMAGES``), and how many of them have an object of each class.
        draw: takes the place of chance.
    """

    members: list[int]
    counts: Counter[Hashable]
    draw: bytes


def split_images(
    records: Sequence[ImageRecord],
    groups: Sequence[str],
    shares: Mapping[str, float],
    *,
    seed: int = 0,
    stratify: bool = False,
) -> dict[str, list[int]]:
    """Divides images into parts.

    Stratified, it is the greedy iterative stratification of Sechidis et al. 2011 (doi:10.1007/978-3-642-23808-6_10): the rarest class
    is shared out first, each image to the part that lacks most of it.

    Args:
        records: the images.
        groups: a name for each image; images of one name come into the same part.
        shares: of the images, for each part; they add up to 1.
        seed: another seed gives other parts.
        stratify: give each part its share of the images of every class, too.

    Returns:
        Indices into the records for each part, sorted.

    Raises:
        InputError: a part gets no image.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    units = []
    for group, indices in members.items():
        counts: Counter[Hashable] = Counter({_IMAGES: len(indices)})
        if stratify:
            counts.update(kind for index in indices for kind in {a.category for a in records[index].annotations})
        units.append(_Unit(indices, counts, hashlib.blake2b(f"{seed}/{group}".encode()).digest()))

    totals: Counter[Hashable] = Counter()
    for unit in units:
        totals.update(unit.counts)
    lacking = {part: {kind: share * total for kind, total in totals.items()} for part, share in shares.items()}
    parts: dict[str, list[int]] = {part: [] for part in shares}
    with_kind: dict[Hashable, list[_Unit]] = {kind: [] for kind in totals}
    for unit in units:
        for kind in unit.counts:
            with_kind[kind].append(unit)
    shared_out: set[bytes] = set()
    left = dict(totals)
    while left:
        # Images come last, since no class is in more of them; equal ones are told apart by name, for the order to be certain.
        kind = min(left, key=lambda kind: (kind == _IMAGES, left[kind], str(kind)))
        del left[kind]
        # Large ones first: what follows evens out where they did not fit.
        for unit in sorted(with_kind[kind], key=lambda unit: (-unit.counts[kind], -unit.counts[_IMAGES], unit.draw)):
            if unit.draw in shared_out:
                continue
            shared_out.add(unit.draw)
            # A part that has all its images gets no more, else the largest part would take every class that is in few images.
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
            raise InputError(f"{part} gets none of {len(members)} groups of images; give it a larger share")
        indices.sort()
    return parts


def group_names(names: Sequence[str], *, by: str, pattern: str | None = None) -> list[str]:
    """Returns the group of each image.

    Args:
        names: paths below the folder of the images.
        by: "image" for a group each; "group" for what the pattern finds, or for the image's folder without one.
        pattern: a regular expression that is searched in the path; its first bracket is the group, or all of it without brackets.

    Raises:
        InputError: a broken pattern, or an image in which it finds nothing.
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
