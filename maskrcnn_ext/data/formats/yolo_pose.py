"""Keypoints in YOLO texts (docs.ultralytics.com/datasets/pose): after the box of a row, ``x y`` or ``x y visibility`` for each keypoint.

``kpt_shape`` of the data file has the number of keypoints and of the values of each, ``flip_idx`` the keypoint that each becomes in a
mirror image, and ``kpt_names`` the names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_ext.errors import InputError

_COCO = (
    "nose",
    *(
        f"{side}_{part}"
        for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
)


@dataclass(frozen=True)
class Pose:
    """The keypoints of each row.

    Attributes:
        names: of the keypoints.
        num_values: 2 for x and y, 3 for these and the visibility.
    """

    names: list[str]
    num_values: int

    def read(self, values: Sequence[float], height: int, width: int, tolerance: float, where: str) -> list[float]:
        """Returns keypoints [x, y, visibility, ...] in pixels of the image.

        Args:
            values: the numbers of a row after its box.
            height: of the image.
            width: of the image.
            tolerance: how far outside of the image a keypoint may be, as a fraction of its size; it is moved to the edge.
            where: begins the error message.

        Raises:
            InputError: there are too few or too many numbers, a labelled keypoint is outside of the image, or a visibility is not 0, 1
                or 2.
        """
        count = len(self.names) * self.num_values
        if len(values) != count:
            raise InputError(
                f"{where}: {len(values)} numbers after the box, expected {len(self.names)} x {self.num_values} for keypoints"
            )
        found: list[float] = []
        for start in range(0, count, self.num_values):
            x, y = values[start : start + 2]
            # Without a visibility, the corner of the image marks a keypoint that is not labelled.
            visibility = values[start + 2] if self.num_values == 3 else 2.0 * ((x, y) != (0, 0))
            if visibility not in (0, 1, 2):
                raise InputError(
                    f"{where}: the visibility of keypoint {start // self.num_values} is {visibility:g}, expected 0, 1 or 2"
                )
            if visibility and not -tolerance <= min(x, y) <= max(x, y) <= 1 + tolerance:
                raise InputError(f"{where}: keypoint {start // self.num_values} ({x:g}, {y:g}) is outside of the image")
            inside = [min(max(x, 0.0), 1.0) * width, min(max(y, 0.0), 1.0) * height, visibility]
            found += inside if visibility else [0.0, 0.0, 0.0]
        return found


def read_pose(data: dict[str, Any], file: Path) -> Pose | None:
    """Returns the keypoints that a data file describes; None if it has no ``kpt_shape``.

    Without names, they are those of COCO if ``flip_idx`` is COCO's. Otherwise they are numbers, and the two of a pair end with "l" and "r".

    Raises:
        InputError: a field is broken.
    """
    shape = data.get("kpt_shape")
    if shape is None:
        return None
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not isinstance(shape[0], int)
        or shape[0] < 1
        or shape[1] not in (2, 3)
    ):
        raise InputError(f"{file}: `kpt_shape` is {shape!r:.100}, expected the number of keypoints, and 2 or 3")
    flips = data.get("flip_idx") or list(range(shape[0]))
    if not isinstance(flips, list) or sorted(map(str, flips)) != sorted(map(str, range(shape[0]))):
        raise InputError(f"{file}: `flip_idx` is {flips!r:.100}, expected each of the numbers 0 to {shape[0] - 1}")
    names = data.get("kpt_names")
    if isinstance(names, dict):  # a list for each class
        names = next(iter(names.values()), None)
    if names is None:
        names = _names_of(flips)
    if not isinstance(names, list) or len(set(map(str, names))) != shape[0]:
        raise InputError(f"{file}: `kpt_names` is {names!r:.100}, expected {shape[0]} different names")
    return Pose([str(name) for name in names], shape[1])


def _names_of(flips: list[int]) -> list[str]:
    if flips == [0, *(index + 1 if index % 2 else index - 1 for index in range(1, len(_COCO)))]:
        return list(_COCO)
    sides = ["l" if index < other else "r" for index, other in enumerate(flips)]
    return [
        str(index) if index == other else f"{min(index, other)}_{side}"
        for index, (other, side) in enumerate(zip(flips, sides, strict=True))
    ]
