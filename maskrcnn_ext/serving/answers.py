"""Answers requests in the process that holds the model: limits, decoding, prediction, JSON."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.serving.detectors import Detector

logger = logging.getLogger(__name__)

# Formats that Pillow decodes by itself: others, such as EPS, start programs.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MASKS = ("rle", "polygons", "none")


@dataclass(frozen=True)
class Request:
    """An image, and the form of the answer.

    Attributes:
        content: the bytes of an image file.
        threshold: least score of the objects.
        masks: one of :data:`MASKS`.
    """

    content: bytes
    threshold: float = 0.5
    masks: str = "rle"


# An HTTP status, and JSON.
Answer = tuple[int, bytes]


def error_answer(status: int, message: str) -> Answer:
    """Returns an answer with an error message.

    Example:
        >>> error_answer(400, "not an image")
        (400, b'{"error": "not an image"}')
    """
    return status, json.dumps({"error": message}).encode()


class Answerer:
    """Answers requests with a detector. No request raises; each has its own answer.

    Example:
        ::

            answerer = Answerer(ModelSource(("output/nuclei",)).load(), max_pixels=50_000_000)
            ((status, body),) = answerer([Request(Path("cells.png").read_bytes())])
    """

    def __init__(self, detector: Detector, max_pixels: int) -> None:
        """Takes a detector, and the most pixels of an image."""
        self._detector = detector
        self._max_pixels = max_pixels

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        """Returns the answer of each request; images are predicted together."""
        answers: dict[int, Answer] = {}
        images: dict[int, np.ndarray] = {}
        for index, request in enumerate(requests):
            refused = self._check(request.content)
            if refused:
                answers[index] = refused
                continue
            try:
                images[index] = self._detector.pixels(request.content)
            except InputError as error:
                answers[index] = error_answer(400, str(error))
        for index, found in self._detect(images).items():
            answers[index] = found if isinstance(found, tuple) else self._answer(requests[index], images[index], found)
        return [answers[index] for index in range(len(requests))]

    def _check(self, content: bytes) -> Answer | None:
        """Returns an error if the bytes are not an image, or one with more pixels than are allowed."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                    width, height = image.size
        except Image.DecompressionBombError as error:
            return error_answer(413, one_line(error))
        except UnidentifiedImageError:
            return error_answer(415, f"not an image: expected one of {', '.join(_FORMATS)}")
        except Exception as error:  # Pillow raises errors of many types for broken headers
            return error_answer(400, f"cannot be read as an image ({one_line(error):.200})")
        if width * height > self._max_pixels:
            return error_answer(413, f"{width} x {height} pixels are more than the {self._max_pixels} that are allowed")
        return None

    def _detect(self, images: dict[int, np.ndarray]) -> dict[int, list[dict[str, Any]] | Answer]:
        """Returns the objects of each image, or an error. If a batch fails, its images are predicted one by one."""
        try:
            return dict(zip(images, self._detector.detect(list(images.values())), strict=True))
        except Exception as error:  # of the model: no image may end the process
            if len(images) > 1:
                found: dict[int, list[dict[str, Any]] | Answer] = {}
                for index, image in images.items():
                    found |= self._detect({index: image})
                return found
            logger.warning("a prediction failed", exc_info=error)
            status = 400 if isinstance(error, InputError) else 500
            return {index: error_answer(status, f"the prediction failed ({one_line(error):.200})") for index in images}

    def _answer(self, request: Request, image: np.ndarray, found: list[dict[str, Any]]) -> Answer:
        objects = [
            {key: value for key, value in one.items() if key != "image_id"}
            for one in found
            if one["score"] >= request.threshold
        ]
        for one in objects:
            if request.masks == "none":
                one.pop("segmentation", None)
            elif request.masks == "polygons" and "segmentation" in one:
                from maskrcnn_ext.data.writers.outlines import decode, outlines_of_mask

                one["segmentation"] = outlines_of_mask(decode(one["segmentation"], *image.shape[:2]))
        height, width = image.shape[:2]
        return 200, json.dumps({"width": width, "height": height, "objects": objects}).encode()
