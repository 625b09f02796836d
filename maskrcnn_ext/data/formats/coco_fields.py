"""Reads single fields of COCO records. A reader returns None for a value that the field cannot have.

The caller decides what None means: :mod:`maskrcnn_ext.data.formats.coco` raises an InputError that names the record,
:mod:`maskrcnn_ext.data.check` collects a fault and continues.
"""

from __future__ import annotations

import sys
from typing import Any, TypeVar

from maskrcnn_ext.data.formats.polygons import rotated_box

Value = TypeVar("Value")
Box = tuple[float, float, float, float]


def is_number(value: Any) -> bool:
    """Returns whether a JSON value is a finite number; ``true`` and integers that are too large for a float are not.

    Example:
        >>> [is_number(value) for value in (3, 0.5, float("nan"), True, "3")]
        [True, True, False, False, False]
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def are_numbers(values: Any) -> bool:
    """Returns whether a JSON value is a list of finite numbers; ``true`` and ``false`` are 1 and 0, as some tools write visibilities."""
    return isinstance(values, list) and all(isinstance(v, int | float) and abs(v) <= sys.float_info.max for v in values)


def read_id(record: Any, key: str) -> int | float | str | None:
    """Returns an id that is a number or a text; whole numbers as int.

    Example:
        >>> read_id({"id": 7.0}, "id"), read_id({"id": True}, "id")
        (7, None)
    """
    value: Any = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, str):
        return value
    if not is_number(value):
        return None
    return int(value) if value == int(value) else value


class ById(dict[Any, Value]):
    """Records by id. An id that is missing finds the record of the same id of the other type: ``"7"`` that of 7, and 7 that of ``"7"``.

    Example:
        >>> records = ById({7: "a.jpg"})
        >>> records["7"], "7" in records, "07" in records
        ('a.jpg', True, False)
    """

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or super().__contains__(other_type(key))

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401, dict.get ignores __missing__

    def __missing__(self, key: Any) -> Value:
        other = other_type(key)
        if not super().__contains__(other):
            raise KeyError(key)
        return super().__getitem__(other)


def other_type(key: Any) -> int | str | None:
    """Returns an id as the other type, a number for a text and a text for a number; None for a text that is no whole number.

    Example:
        >>> other_type("7"), other_type(7.0), other_type("07")
        (7, '7', None)
    """
    if isinstance(key, str):
        return int(key) if key.isdecimal() and key == str(int(key)) else None
    return str(int(key)) if is_number(key) and key == int(key) else None


def read_text(record: Any, key: str) -> str | None:
    """Returns a text that is not empty."""
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, str) and value else None


def read_side(value: Any) -> int | None:
    """Returns the height or width of an image, a whole number of pixels above 0.

    Example:
        >>> read_side(480.0), read_side(0), read_side(True)
        (480, None, None)
    """
    is_side = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
    return int(value) if is_side and value == int(value) else None


def read_box(value: Any) -> Box | None:
    """Returns ``bbox`` [x, y, width, height] as (x0, y0, x1, y1) in pixels. The width and height may be negative.

    Example:
        >>> read_box([1, 2, 3, 4])
        (1.0, 2.0, 4.0, 6.0)
    """
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(is_number, value)):
        return None
    x, y, width, height = map(float, value)
    return x, y, x + width, y + height


def nest_polygons(value: list[Any]) -> list[Any]:
    """Returns polygons [[x, y, x, y, ...], ...] also of one flat list, and of a list of points [[x, y], ...].

    Example:
        >>> nest_polygons([0, 0, 9, 0, 9, 9]), nest_polygons([[0, 0], [9, 0], [9, 9]])
        ([[0, 0, 9, 0, 9, 9]], [[0, 0, 9, 0, 9, 9]])
    """
    if all(isinstance(entry, int | float) for entry in value):
        return [value]
    if len(value) > 2 and all(isinstance(entry, list) and len(entry) == 2 for entry in value):
        return [[number for point in value for number in point]]
    return value


def read_rotated_box(record: dict[str, Any]) -> list[float] | None:
    """Returns the polygon of an object whose box is rotated; None for any other object.

    CVAT writes ``attributes.rotation``, in degrees clockwise, for an object without segmentation. A ``bbox`` of five numbers is that of
    Detectron2's ``XYWHA_ABS``: centre, width, height and degrees counterclockwise.

    Example:
        >>> record = {"bbox": [30, 35, 40, 10], "attributes": {"rotation": 90.0}}
        >>> [round(value) for value in read_rotated_box(record)]
        [55, 20, 55, 60, 45, 60, 45, 20]
    """
    values = record.get("bbox")
    if isinstance(values, list) and len(values) == 5:
        if not all(map(is_number, values)):
            return None
        cx, cy, width, height, angle = map(float, values)
        return rotated_box(cx, cy, width, height, -angle)
    attributes = record.get("attributes")
    rotation: Any = attributes.get("rotation") if isinstance(attributes, dict) else None
    if not is_number(rotation) or rotation % 180 == 0 or record.get("segmentation"):
        return None
    box = read_box(values)
    if box is None:
        return None
    return rotated_box((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1], rotation)


def has_keypoint_count(count: int, expected: int) -> bool:
    """Returns whether ``keypoints`` may have a count of numbers: `expected`, or any multiple of three if `expected` is 0."""
    return count >= 0 and count % 3 == 0 and expected in (0, count)
