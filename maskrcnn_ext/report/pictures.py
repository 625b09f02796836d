"""Pictures for the pages: the images of a run with truth beside prediction, and how any image becomes a picture on a page."""

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

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats.records import keypoints_to_subpixel
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.tools.browse import readable_format, to_bgr
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import decode_rle, encode_mask, segmentation_to_rle
from maskrcnn_ext.report.draw import Color, DrawnObject, draw_objects, draw_skeleton
from maskrcnn_ext.report.run import TASKS

_SIDE, _CROP_SIDE = 640, 400  # pixels of a picture's longer side; the page shows them at half of it
_LABEL_SCALE = 0.9  # letters of 10 pixels at that
_JPEG_QUALITY = 80
_NUM_IMAGES, _NUM_CROPS = 6, 8
_CONTEXT = 0.75  # margin around an object in a crop, as a share of its longer side
_MIN_CONTEXT = 12.0  # pixels
_MAX_LABELS = 15  # more would hide the objects
_MAX_FILE_NAME = 28  # letters of a file name in a caption
# Blue, green, red: the blue and orange of Okabe and Ito, which colour-blind readers can distinguish.
_RIGHT, _WRONG, _NEUTRAL, _FOCUS = (233, 180, 86), (0, 140, 255), (170, 170, 170), (255, 255, 255)

# The summary's kinds of errors, as the pages name them.
ERRORS = {
    "classification": "wrong class",
    "localisation": "wrong place",
    "both": "wrong class and place",
    "duplicate": "found twice",
    "background": "no object there",
    "missed": "missed",
    "false_positive": "all wrong detections",
    "false_negative": "all objects not found",
}

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


def read_bgr(record: dict[str, Any]) -> np.ndarray:
    """Reads the image of a record of Detectron2: (H, W, 3), uint8, BGR.

    Raises:
        InputError: it cannot be read.
    """
    image_format = readable_format(record)
    pixels: np.ndarray = to_bgr(read_pixels(record, image_format), image_format)
    return pixels


def embed_jpeg(pixels: np.ndarray) -> str:
    """Returns an image (H, W, 3), uint8, BGR, as a ``data:`` address."""
    encoded: Any = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def short_name(file: str) -> str:
    """Returns the name of a file for a caption, without the middle of a long one.

    Example:
        >>> short_name("images/a.png"), len(short_name("x" * 99))
        ('a.png', 25)
    """
    name = Path(file).name
    return name if len(name) <= _MAX_FILE_NAME else f"{name[:12]}…{name[-12:]}"


def shift_box(box: Box, crop: tuple[int, int, int, int]) -> Box:
    """Returns a box in pixels of a crop. It ends a little outside the crop at most, because OpenCV draws with 16-bit coordinates.

    Example:
        >>> shift_box((5.0, 5.0, 99999.0, 20.0), (0, 10, 50, 40))
        (5.0, -5.0, 59.0, 10.0)
    """
    x0, y0, x1, y1 = crop
    left, right = (min(max(value - x0, -9.0), x1 - x0 + 9.0) for value in box[0::2])
    top, bottom = (min(max(value - y0, -9.0), y1 - y0 + 9.0) for value in box[1::2])
    return left, top, right, bottom


@dataclass(frozen=True)
class EvaluatedRun:
    """Ground truth and predictions of a run, and their metrics.

    Attributes:
        summary: from :func:`maskrcnn_ext.evaluation.summary.evaluate`.
        images: COCO's.
        categories: COCO's.
        annotations: COCO's; the summary refers to them by index.
        results: COCO's; the summary refers to them by index.
        records: records of Detectron2 by image id, with everything that reading the image needs.
        links: pairs of indices of keypoints that a line connects.
        interval: the 95 % interval of the main task's AP, in percent; None if it was not measured.
    """

    summary: dict[str, Any]
    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    results: Sequence[dict[str, Any]]
    records: dict[Any, dict[str, Any]]
    links: Sequence[tuple[int, int]]
    interval: tuple[float, float] | None = None

    @property
    def main_task(self) -> str:
        """The first evaluated task of :data:`maskrcnn_ext.report.run.TASKS`."""
        return next(task for task in TASKS if task in self.summary["tasks"])

    @cached_property
    def _images_by_id(self) -> dict[Any, dict[str, Any]]:
        return {image["id"]: image for image in self.images}

    @cached_property
    def _class_names(self) -> dict[int, str]:
        return {category["id"]: category["name"] for category in self.categories}

    @cached_property
    def _results_by_image(self) -> dict[Any, list[int]]:
        return _group_by_image(self.results)

    @cached_property
    def _annotations_by_image(self) -> dict[Any, list[int]]:
        return _group_by_image(self.annotations)

    def galleries(self, task: str) -> dict[str, list[dict[str, Any]]]:
        """Draws the images that a task's summary calls best and worst, the wrong detections with the highest scores and missed objects.

        Returns:
            ``{"worst", "best", "wrong", "missed": [{"caption", "name", "file", "pictures": [(title, data: address)], "fault"}]}``;
            ``fault`` says why there is no picture, or is "".
        """
        metrics = self.summary["tasks"][task]
        ranked = sorted(
            (row for row in metrics["images"] if row["quality"] is not None),
            key=lambda row: (row["quality"], -row["objects"]),
        )
        half = min(_NUM_IMAGES, (len(ranked) + 1) // 2)
        best = [row for row in ranked[half:] if row["quality"] > 0][-_NUM_IMAGES:]
        missed = sorted((n for row in metrics["images"] for n in row["not_found"]), key=self._area, reverse=True)
        return {
            "worst": [self.image_figure(row, task) for row in ranked[:half]],
            "best": [self.image_figure(row, task) for row in reversed(best)],
            "wrong": [self._wrong_figure(row, task) for row in metrics["wrong"][:_NUM_CROPS]],
            "missed": [self._missed_figure(index, task) for index in missed[:_NUM_CROPS]],
        }

    def image_figure(self, row: dict[str, Any], task: str) -> dict[str, Any]:
        """Returns a figure as in :meth:`galleries` of the image of a `row` of the summary's ``images``: truth and prediction."""
        caption = f"{plural(row['objects'], 'object')}: {row['true_positives']} found, {row['missed']} missed"
        if row["false_positives"]:
            caption += f"; {row['false_positives']} wrong"
        return self._figure(row, task, f"{caption}; quality {row['quality']:.2f}")

    def _wrong_figure(self, row: dict[str, Any], task: str) -> dict[str, Any]:
        caption = f"{row['class']} {row['score']:.2f}: {ERRORS[row['kind']]}"
        return self._figure(
            self._image_row(row["image_id"], task), task, caption, _corner_box(self.results[row["result"]])
        )

    def _missed_figure(self, index: int, task: str) -> dict[str, Any]:
        annotation = self.annotations[index]
        caption = f"{self._class_names[annotation['category_id']]} of {self._area(index):,.0f} pixels"
        return self._figure(self._image_row(annotation["image_id"], task), task, caption, _corner_box(annotation))

    def _image_row(self, image_id: Any, task: str) -> dict[str, Any]:
        rows: list[dict[str, Any]] = self.summary["tasks"][task]["images"]
        return next(row for row in rows if row["image_id"] == image_id)

    def _area(self, index: int) -> float:
        return float(self.annotations[index]["area"])

    def _figure(self, row: dict[str, Any], task: str, caption: str, focus: Box | None = None) -> dict[str, Any]:
        """Draws truth and prediction of an image, or of the part around the box `focus`."""
        image_id = row["image_id"]
        record = self.records.get(image_id, {})
        file = str(record.get("file_name", image_id))
        figure: dict[str, Any] = {
            "caption": caption,
            "name": short_name(file),
            "file": file,
            "pictures": [],
            "fault": "",
        }
        try:
            pixels = _read_checked(record, self._images_by_id[image_id])
        except InputError as error:
            return {**figure, "fault": str(error)}
        part = _ImagePart(pixels, focus)
        for title, shown in (("truth", self._truth(row, part)), ("predicted", self._predictions(row, task, part))):
            figure["pictures"].append((title, embed_jpeg(part.draw(list(shown), self.links))))
        return figure

    def _truth(self, row: dict[str, Any], part: _ImagePart) -> Iterator[_ColoredRecord]:
        missed = set(row["not_found"])
        indices = self._annotations_by_image[row["image_id"]]
        indices = [index for index in indices if part.shows(_corner_box(self.annotations[index]))]
        for index in indices:
            annotation = self.annotations[index]
            color = _NEUTRAL if annotation["iscrowd"] else _WRONG if index in missed else _RIGHT
            has_label = len(self._class_names) > 1 and len(indices) <= _MAX_LABELS
            yield _ColoredRecord(annotation, color, self._class_names[annotation["category_id"]] if has_label else "")

    def _predictions(self, row: dict[str, Any], task: str, part: _ImagePart) -> Iterator[_ColoredRecord]:
        wrong, min_score = set(row["wrong"]), self.summary["settings"]["score_threshold"]
        scores = {index: _ranking_score(self.results[index], task) for index in self._results_by_image[row["image_id"]]}
        indices = [
            index
            for index, score in scores.items()
            if score >= min_score and part.shows(_corner_box(self.results[index]))
        ]
        for index in sorted(indices, key=lambda index: (index in wrong, scores[index])):
            result = self.results[index]
            name = f"{self._class_names[result['category_id']]} " if len(self._class_names) > 1 else ""
            has_label = len(indices) <= _MAX_LABELS or (index in wrong and len(indices) <= 2 * _MAX_LABELS)
            label = f"{name}{scores[index]:.2f}" if has_label else ""
            yield _ColoredRecord(result, _WRONG if index in wrong else _RIGHT, label)


@dataclass(frozen=True)
class _ColoredRecord:
    """An annotation or a result of COCO's, with the colour and label it is drawn with."""

    record: dict[str, Any]
    color: Color
    label: str


class _ImagePart:
    """An image, or the part of it around one object."""

    def __init__(self, pixels: np.ndarray, focus: Box | None) -> None:
        self._size = height, width = pixels.shape[:2]
        self._focus = focus
        self._crop = (0, 0, width, height) if focus is None else _square_crop(focus, width, height)
        x0, y0, x1, y1 = self._crop
        self._pixels = pixels[y0:y1, x0:x1]
        self._scale = (_SIDE if focus is None else _CROP_SIDE) / max(x1 - x0, y1 - y0)

    def shows(self, box: Box) -> bool:
        """Returns whether a part of a box is inside."""
        x0, y0, x1, y1 = self._crop
        return box[0] < x1 and box[1] < y1 and box[2] > x0 and box[3] > y0

    def draw(self, records: list[_ColoredRecord], links: Sequence[tuple[int, int]]) -> np.ndarray:
        """Returns the picture with objects drawn on it."""
        objects = [self._to_drawn_object(colored) for colored in records]
        if self._focus is not None:
            objects.append(DrawnObject(None, shift_box(self._focus, self._crop), "", _FOCUS))
        canvas = draw_objects(self._pixels, objects, scale=self._scale, label_scale=_LABEL_SCALE)
        for colored in records:
            if colored.record.get("keypoints"):
                points = np.array(keypoints_to_subpixel(colored.record["keypoints"]), dtype=float).reshape(-1, 3)
                points[:, :2] -= self._crop[:2]
                draw_skeleton(canvas, points, links, colored.color, scale=self._scale)
        return canvas

    def _to_drawn_object(self, colored: _ColoredRecord) -> DrawnObject:
        x0, y0, x1, y1 = self._crop
        mask = colored.record.get("segmentation")
        if mask and self._focus is not None:
            mask = encode_mask(decode_rle(segmentation_to_rle(mask, *self._size))[y0:y1, x0:x1])
        return DrawnObject(
            mask or None, shift_box(_corner_box(colored.record), self._crop), colored.label, colored.color
        )


def _read_checked(record: dict[str, Any], image: dict[str, Any]) -> np.ndarray:
    """Returns the image of a record, which must have the size that COCO's `image` says."""
    file = record.get("file_name", "")
    if not Path(file).is_file():
        raise InputError(f"no such file: {file}")
    pixels = read_bgr(record)
    if pixels.shape[:2] != (image["height"], image["width"]):
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise InputError(f"{file} has {size} pixels, the annotations say {image['width']} x {image['height']}")
    return pixels


def _square_crop(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Returns the square around a box with context, moved into the image, and smaller if the image is."""
    side = max(box[2] - box[0], box[3] - box[1])
    side += 2 * max(_MIN_CONTEXT, _CONTEXT * side)
    edges = []
    for middle, size in (((box[0] + box[2]) / 2, width), ((box[1] + box[3]) / 2, height)):
        length = min(math.ceil(side), size)
        start = min(max(round(middle - length / 2), 0), size - length)
        edges.append((start, start + length))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


def _corner_box(record: dict[str, Any]) -> Box:
    x, y, width, height = record["bbox"]
    return x, y, x + width, y + height


def _ranking_score(result: dict[str, Any], task: str) -> float:
    """Returns the score that the evaluation ranks a result by: for masks, the mask score if there is one."""
    return float(result.get("mask_score", result["score"]) if task == "segm" else result["score"])


def _group_by_image(records: Sequence[dict[str, Any]]) -> dict[Any, list[int]]:
    indices: dict[Any, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        indices[record["image_id"]].append(index)
    return indices
