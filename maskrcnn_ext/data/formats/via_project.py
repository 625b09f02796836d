"""Projects of VGG Image Annotator 3, which keep files, views, regions and attributes apart.

A view shows files, here one image. ``metadata`` has a record for each region: its view, the shape and its coordinates (``xy``), and the
values of attributes (``av``), which for choices are the ids of options.
"""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.errors import InputError

_SECTIONS = ("attribute", "file", "view", "metadata")
# The shapes that enclose an area and points, by their numbers, each with the fields that VIA 2 has for their coordinates.
_SHAPES = {
    1: ("point", "cx cy"),
    2: ("rect", "x y width height"),
    3: ("circle", "cx cy r"),
    4: ("ellipse", "cx cy rx ry"),
}
_LINES = {6: "polyline", 7: "polygon"}
_CHECK_BOXES = 2  # a kind of attribute


def is_project(content: Any) -> bool:
    """Returns whether the content of a JSON file is a project of VIA 3."""
    return isinstance(content, dict) and all(isinstance(content.get(name), dict) for name in _SECTIONS)


def entries_of_project(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the images and regions of a project as VIA 2 writes them.

    Args:
        content: see :func:`is_project`.
        where: the file, for messages.

    Raises:
        InputError: a record is broken, or of a video.

    Example:
        >>> project = {"file": {"1": {"fname": "a.jpg"}}, "view": {"1": {"fid_list": ["1"]}}, "attribute": {}}
        >>> entries_of_project({**project, "metadata": {"1_a": {"vid": "1", "xy": [2, 5, 6, 10, 20], "av": {}}}}, "a.json")["1"]["regions"]
        [{'shape_attributes': {'name': 'rect', 'x': 5, 'y': 6, 'width': 10, 'height': 20}, 'region_attributes': {}}]
    """
    entries: dict[str, Any] = {}
    for number, view in content["view"].items():
        try:
            (file,) = view["fid_list"]
            name = content["file"][str(file)]["fname"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: view {number!r} shows no single file") from error
        entries[number] = {"filename": name, "regions": []}
    for key, record in content["metadata"].items():
        place = f"{where}: metadata {key!r}"
        try:
            view, shape, values, times = str(record["vid"]), record["xy"], record.get("av") or {}, record.get("z")
            attributes = dict(_attribute(content["attribute"][one], value) for one, value in values.items())
            regions = entries[view]["regions"]
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"{place}: broken, or refers to a missing record ({error})") from error
        if times:
            raise InputError(f"{place}: of a video: save its frames as images and label these")
        if shape:  # attributes of the whole image have no shape
            regions.append({"shape_attributes": _shape(shape, place), "region_attributes": attributes})
    return entries


def _shape(xy: Any, where: str) -> dict[str, Any]:
    try:
        kind, *values = xy
        if kind in _LINES:
            return {"name": _LINES[kind], "all_points_x": values[::2], "all_points_y": values[1::2]}
        name, fields = _SHAPES[kind]
        return {"name": name, **dict(zip(fields.split(), values, strict=True))}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: shape {xy!r:.100}, expected a polygon, rectangle, circle, ellipse or point"
        ) from error


def _attribute(attribute: dict[str, Any], value: Any) -> tuple[str, Any]:
    """Returns the name of an attribute and its value, with the names of the chosen options."""
    options = attribute.get("options") or {}
    if attribute.get("type") == _CHECK_BOXES:
        return attribute["aname"], {options.get(one, one): True for one in str(value).split(",") if one}
    return attribute["aname"], options.get(value, value)
