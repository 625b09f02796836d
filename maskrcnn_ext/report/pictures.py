"""Pictures of a run's images, what is true beside what was found, and which of them are worth a look."""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.tools.browse import readable_format, to_bgr
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_mask
from maskrcnn_ext.report.draw import Item, decode, draw
from maskrcnn_ext.report.skeleton import draw_skeleton

_SIDE, _CROP_SIDE = 560, 320  # pixels of a picture's longer side
_QUALITY = 80
_NUM_IMAGES, _NUM_CROPS = 6, 8
_CONTEXT = 0.75  # of an object's longer side, around it in a crop
_MIN_CONTEXT = 12.0  # pixels
_MAX_LABELS = 15  # more would hide the objects
# Blue, green, red; Okabe and Ito's blue and orange, which the colour-blind tell apart.
_RIGHT, _WRONG, _NEUTRAL, _FOCUS = (233, 180, 86), (0, 140, 255), (170, 170, 170), (255, 255, 255)

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


@dataclass(frozen=True)
class Evaluated:
    """What was to be found, what was found, and how the two compare.

    Attributes:
        summary: of :func:`maskrcnn_ext.evaluation.summary.evaluate`.
        images: COCO's.
        categories: COCO's.
        annotations: COCO's, in the order that the summary counts them in.
        results: COCO's, in the order that the summary counts them in.
        records: of Detectron2, with what its readers need, by image id.
        links: pairs of indices of keypoints that a line joins.
    """

    summary: dict[str, Any]
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    results: list[dict[str, Any]]
    records: dict[Any, dict[str, Any]]
    links: Sequence[tuple[int, int]]

    @cached_property
    def _images_by_id(self) -> dict[Any, dict[str, Any]]:
        return {image["id"]: image for image in self.images}

    @cached_property
    def _names(self) -> dict[int, str]:
        return {category["id"]: category["name"] for category in self.categories}

    @cached_property
    def _results_of(self) -> dict[Any, list[int]]:
        return _by_image(self.results)

    @cached_property
    def _annotations_of(self) -> dict[Any, list[int]]:
        return _by_image(self.annotations)

    def galleries(self, task: str) -> dict[str, list[dict[str, Any]]]:
        """Draws what a task's summary calls best, worst, surely wrong and missed.

        Returns:
            ``{"worst", "best", "wrong", "missed": [{"caption", "file", "pictures": [(name, data: address), ...], "fault"}, ...]}``;
            ``fault`` says why there is no picture, and is "" where there is one.
        """
        found = self.summary["tasks"][task]
        ranked = sorted(
            (own for own in found["images"] if own["quality"] is not None),
            key=lambda own: (own["quality"], -own["objects"]),
        )
        half = min(_NUM_IMAGES, (len(ranked) + 1) // 2)
        best = [own for own in ranked[half:] if own["quality"] > 0][-_NUM_IMAGES:]
        not_found = sorted((n for own in found["images"] for n in own["not_found"]), key=self._area, reverse=True)
        return {
            "worst": [self._whole(own, task) for own in ranked[:half]],
            "best": [self._whole(own, task) for own in reversed(best)],
            "wrong": [self._wrong(own, task) for own in found["wrong"][:_NUM_CROPS]],
            "missed": [self._missed(number, task) for number in not_found[:_NUM_CROPS]],
        }

    def _whole(self, own: dict[str, Any], task: str) -> dict[str, Any]:
        caption = f"{own['objects']} objects: {own['true_positives']} found, {own['missed']} missed"
        if own["false_positives"]:
            caption += f"; {own['false_positives']} wrong"
        return self._figure(own["image_id"], task, f"{caption}; quality {own['quality']:.2f}")

    def _wrong(self, own: dict[str, Any], task: str) -> dict[str, Any]:
        caption = f"{own['class']} {own['score']:.2f}: {own['kind']}"
        return self._figure(own["image_id"], task, caption, _box(self.results[own["result"]]))

    def _missed(self, number: int, task: str) -> dict[str, Any]:
        own = self.annotations[number]
        caption = f"{self._names[own['category_id']]} of {self._area(number):,.0f} pixels"
        return self._figure(own["image_id"], task, caption, _box(own))

    def _area(self, number: int) -> float:
        return float(self.annotations[number]["area"])

    def _figure(self, image_id: Any, task: str, caption: str, focus: Box | None = None) -> dict[str, Any]:
        record = self.records.get(image_id, {})
        file = str(record.get("file_name", image_id))
        name = Path(file).name
        short = name if len(name) <= 28 else f"{name[:12]}…{name[-12:]}"
        figure: dict[str, Any] = {"caption": f"{short}: {caption}", "file": file, "pictures": [], "fault": ""}
        try:
            pixels = _read(record, self._images_by_id[image_id])
        except InputError as error:
            return {**figure, "fault": str(error)}
        view = _View(pixels, focus)
        row = next(own for own in self.summary["tasks"][task]["images"] if own["image_id"] == image_id)
        for title, drawn in (("truth", self._truth(row, view)), ("predicted", self._predicted(row, task, view))):
            figure["pictures"].append((title, _embed(view.draw(list(drawn), self.links))))
        return figure

    def _truth(self, row: dict[str, Any], view: _View) -> Iterator[_Shape]:
        missed = set(row["not_found"])
        own = [n for n in self._annotations_of[row["image_id"]] if view.shows(_box(self.annotations[n]))]
        for number in own:
            found = self.annotations[number]
            color = _NEUTRAL if found["iscrowd"] else _WRONG if number in missed else _RIGHT
            label = self._names[found["category_id"]] if len(self._names) > 1 and len(own) <= _MAX_LABELS else ""
            yield _Shape(found, color, label)

    def _predicted(self, row: dict[str, Any], task: str, view: _View) -> Iterator[_Shape]:
        wrong, least = set(row["wrong"]), self.summary["settings"]["score_threshold"]
        scores = {n: _score(self.results[n], task) for n in self._results_of[row["image_id"]]}
        own = [n for n, score in scores.items() if score >= least and view.shows(_box(self.results[n]))]
        for number in sorted(own, key=lambda n: scores[n]):
            found = self.results[number]
            name = f"{self._names[found['category_id']]} " if len(self._names) > 1 else ""
            label = f"{name}{scores[number]:.2f}" if number in wrong or len(own) <= _MAX_LABELS else ""
            yield _Shape(found, _WRONG if number in wrong else _RIGHT, label if len(own) <= 2 * _MAX_LABELS else "")


@dataclass(frozen=True)
class _Shape:
    """An annotation or a result of COCO's, and how it is drawn."""

    found: dict[str, Any]
    color: tuple[int, int, int]
    label: str


class _View:
    """An image, or the part of it around one object."""

    def __init__(self, pixels: np.ndarray, focus: Box | None) -> None:
        self._size = height, width = pixels.shape[:2]
        self._focus = focus
        self._part = (0, 0, width, height) if focus is None else _region(focus, width, height)
        x0, y0, x1, y1 = self._part
        self._pixels = pixels[y0:y1, x0:x1]
        self._scale = (_SIDE if focus is None else _CROP_SIDE) / max(x1 - x0, y1 - y0)

    def shows(self, box: Box) -> bool:
        """Whether a box is in it."""
        x0, y0, x1, y1 = self._part
        return box[0] < x1 and box[1] < y1 and box[2] > x0 and box[3] > y0

    def draw(self, shapes: list[_Shape], links: Sequence[tuple[int, int]]) -> np.ndarray:
        """Returns the picture with objects on it."""
        items = [self._item(shape) for shape in shapes]
        if self._focus is not None:
            items.append(Item(None, self._moved(self._focus), "", _FOCUS))
        canvas = draw(self._pixels, items, scale=self._scale)
        for shape in shapes:
            if shape.found.get("keypoints"):
                # From COCO's indices of pixels to places in this part of the image.
                points = np.array(shape.found["keypoints"], dtype=float).reshape(-1, 3)
                points[:, :2] += 0.5 - np.array(self._part[:2])
                draw_skeleton(canvas, points, links, shape.color, scale=self._scale)
        return canvas

    def _item(self, shape: _Shape) -> Item:
        x0, y0, x1, y1 = self._part
        mask = shape.found.get("segmentation")
        if mask and self._focus is not None:
            mask = encode_mask(decode(mask, *self._size)[y0:y1, x0:x1])
        return Item(mask or None, self._moved(_box(shape.found)), shape.label, shape.color)

    def _moved(self, box: Box) -> Box:
        """A box in pixels of this part; a little beyond it at most, as OpenCV draws with 16-bit numbers."""
        x0, y0, x1, y1 = self._part
        left, right = (min(max(value - x0, -9.0), x1 - x0 + 9.0) for value in box[0::2])
        top, bottom = (min(max(value - y0, -9.0), y1 - y0 + 9.0) for value in box[1::2])
        return left, top, right, bottom


def _read(record: dict[str, Any], image: dict[str, Any]) -> np.ndarray:
    """Returns (H, W, 3) uint8, BGR."""
    file = record.get("file_name", "")
    if not Path(file).is_file():
        raise InputError(f"no such file: {file}")
    image_format = readable_format(record)
    pixels: np.ndarray = to_bgr(read_pixels(record, image_format), image_format)
    if pixels.shape[:2] != (image["height"], image["width"]):
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise InputError(f"{file} has {size} pixels, the annotations say {image['width']} x {image['height']}")
    return pixels


def _region(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The square around a box, with context; moved into the image, and cut off where that is smaller."""
    side = max(box[2] - box[0], box[3] - box[1])
    side += 2 * max(_MIN_CONTEXT, _CONTEXT * side)
    edges = []
    for middle, size in (((box[0] + box[2]) / 2, width), ((box[1] + box[3]) / 2, height)):
        reach = min(math.ceil(side), size)
        start = min(max(round(middle - reach / 2), 0), size - reach)
        edges.append((start, start + reach))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


def _box(found: dict[str, Any]) -> Box:
    x, y, width, height = found["bbox"]
    return x, y, x + width, y + height


def _score(result: dict[str, Any], task: str) -> float:
    """What the evaluation ranks it by: a mask by its own score, where it has one."""
    return float(result.get("mask_score", result["score"]) if task == "segm" else result["score"])


def _by_image(entries: list[dict[str, Any]]) -> dict[Any, list[int]]:
    found: dict[Any, list[int]] = defaultdict(list)
    for number, entry in enumerate(entries):
        found[entry["image_id"]].append(number)
    return found


def _embed(pixels: np.ndarray) -> str:
    encoded: Any = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
