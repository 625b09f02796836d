"""A training batch on disk: everything that is needed to run it again, and a picture to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from PIL import Image, ImageDraw
from torch import Tensor

from maskrcnn_ext.data.tools.browse import to_bgr
from maskrcnn_ext.errors import InputError

_WIDTH = 480  # of an image in the picture, pixels
_COLUMNS = 4
_GOOD, _BAD = (80, 220, 80), (255, 40, 40)


def save_batch(inputs: Sequence[Mapping[str, Any]], path: Path, **facts: Any) -> None:
    """Writes inputs of a model as tensors and plain values, which ``torch.load(path, weights_only=True)`` reads.

    Args:
        inputs: as a training loader gives them.
        path: of the file.
        facts: plain values to store beside.
    """
    torch.save({**facts, "inputs": [_to_plain(sample) for sample in inputs]}, path)


def load_batch(path: str | Path) -> list[dict[str, Any]]:
    """Reads what :func:`save_batch` has written, back to what ``model(...)`` takes.

    Raises:
        InputError: no such file, or one of another kind.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return [_from_plain(sample) for sample in saved["inputs"]]
    except Exception as error:  # torch raises its own, zipfile's, pickle's and the system's errors
        raise InputError(
            f"{path}: not a batch that the divergence guard has written ({type(error).__name__})"
        ) from error


def _to_plain(value: Any) -> Any:
    if isinstance(value, Instances):
        return {
            "image_size": tuple(value.image_size),
            "detectron2.Instances": {k: _to_plain(v) for k, v in value.get_fields().items()},
        }
    if isinstance(value, PolygonMasks):
        return {
            "detectron2.PolygonMasks": [[torch.as_tensor(np.asarray(p)) for p in outline] for outline in value.polygons]
        }
    for name, kind in _STRUCTURES.items():
        if isinstance(value, kind):
            return {name: value.tensor.detach().cpu()}
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(inner) for inner in value]
    return value if value is None or type(value) in (bool, int, float, str, bytes) else str(value)


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"image_size", "detectron2.Instances"}:
        fields = {name: _from_plain(inner) for name, inner in value["detectron2.Instances"].items()}
        return Instances(tuple(value["image_size"]), **fields)
    if set(value) == {"detectron2.PolygonMasks"}:
        return PolygonMasks([[p.numpy() for p in outline] for outline in value["detectron2.PolygonMasks"]])
    for name, kind in _STRUCTURES.items():
        if set(value) == {name}:
            return kind(value[name])
    return {key: _from_plain(inner) for key, inner in value.items()}


_STRUCTURES: dict[str, Any] = {
    "detectron2.Boxes": Boxes,
    "detectron2.BitMasks": BitMasks,
    "detectron2.Keypoints": Keypoints,
}


def draw_batch(
    inputs: Sequence[Mapping[str, Any]], captions: Sequence[str], marked: Sequence[bool], input_format: str, path: Path
) -> None:
    """Draws the images of a batch with their boxes, side by side.

    Args:
        inputs: as a training loader gives them.
        captions: above each image.
        marked: which of them to mark; boxes without an area are marked anyway.
        input_format: of the pixels, such as "BGR".
        path: of the picture.
    """
    tiles = [_tile(s, c, m, input_format) for s, c, m in zip(inputs, captions, marked, strict=True)]
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    heights = [max(tile.height for tile in row) for row in rows]
    canvas = Image.new("RGB", (_WIDTH * max(len(row) for row in rows), sum(heights)))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            canvas.paste(tile, (_WIDTH * column, top))
        top += height
    canvas.save(path)


def _tile(sample: Mapping[str, Any], caption: str, marked: bool, input_format: str) -> Image.Image:
    pixels = sample["image"].detach().cpu().numpy()
    if not np.issubdtype(pixels.dtype, np.integer):
        finite = pixels[np.isfinite(pixels)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        pixels = np.nan_to_num(pixels.astype(np.float32), nan=high, posinf=high, neginf=low)
    image = Image.fromarray(np.ascontiguousarray(to_bgr(pixels.transpose(1, 2, 0), input_format)[..., ::-1]))
    scale = (_WIDTH - 4) / image.width
    size = (_WIDTH - 4, max(1, round(image.height * scale)))
    tile = Image.new("RGB", (_WIDTH, size[1] + 20), _BAD if marked else (40, 40, 40))
    tile.paste(image.resize(size), (2, 18))
    pen = ImageDraw.Draw(tile)
    pen.text((4, 3), caption, fill=(255, 255, 255))
    instances = sample.get("instances")
    boxes = instances.gt_boxes.tensor.tolist() if isinstance(instances, Instances) and instances.has("gt_boxes") else []
    for x0, y0, x1, y1 in boxes:
        if not np.isfinite([x0, y0, x1, y1]).all():
            continue
        corners = [2 + min(x0, x1) * scale, 18 + min(y0, y1) * scale, 2 + max(x0, x1) * scale, 18 + max(y0, y1) * scale]
        if x1 > x0 and y1 > y0:
            pen.rectangle(corners, outline=_GOOD)
        else:  # a cross of some size, because the box itself would not be seen
            x, y = corners[0], corners[1]
            pen.line([x - 8, y, x + 8, y], fill=_BAD, width=2)
            pen.line([x, y - 8, x, y + 8], fill=_BAD, width=2)
    return tile
