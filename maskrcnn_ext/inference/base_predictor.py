"""Base class of the predictors of one model and of several: it reads images, and returns the instances of the models as predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances

from maskrcnn_ext.data.images.memory import read_image
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.inference.predictions import Predictions


class BasePredictor(ABC):
    """Predicts images, with the methods :meth:`prepare` and :meth:`run` of a subclass.

    Attributes:
        model: the model, in evaluation mode; of several, the first.
        classes: the meaning of its outputs, a :class:`maskrcnn_ext.data.registry.classes.Classes`.
        weights: file or URL of the weights.
        image_format: format of the pixels that the model takes: "BGR", "RGB", "L" or "raw".
        read: returns the pixels (H, W, C) of a record of Detectron2, as they were read in training.
        device: device of the model.

    Example:
        ::

            class Negative(maskrcnn_ext.Predictor):
                def prepare(self, pixels):
                    return super().prepare(255 - pixels)
    """

    def __init__(
        self,
        model: Any,
        classes: Classes,
        weights: str,
        image_format: str,
        read: Callable[[dict[str, Any]], np.ndarray],
    ) -> None:
        """Stores the arguments, see the attributes."""
        self.model, self.classes, self.weights = model, classes, weights
        self.image_format, self.read = image_format, read
        self.device = model.device

    @abstractmethod
    def prepare(self, pixels: np.ndarray) -> dict[str, Any]:
        """Returns the input of :meth:`run` for pixels (H, W, C)."""

    @abstractmethod
    def run(self, inputs: Iterable[dict[str, Any]], *, batch_size: int = 1) -> Iterator[Instances]:
        """Predicts inputs that :meth:`prepare` returned; yields the instances in the same order."""

    @property
    def input_format(self) -> str:
        """Order of the channels of arrays, under the name that Detectron2's DefaultPredictor has for it; SAHI reads it."""
        return "raw" if self.image_format == "raw" else "BGR"

    def __call__(self, image: Any, *, threshold: float = 0.0) -> Predictions:
        """Predicts one image.

        Args:
            image: see :meth:`pixels`.
            threshold: least score of the objects. The model itself leaves out those below ``box_predictor.test_score_thresh``, mostly 0.05.

        Raises:
            InputError: it cannot be read, or the threshold is not a score.
        """
        found = next(self.run([self.prepare(self.pixels(image))]))
        return Predictions.of(found, self.classes, image, image_format=self.image_format, threshold=threshold)

    def predict(self, images: Iterable[Any], *, batch_size: int = 1, threshold: float = 0.0) -> Iterator[Predictions]:
        """Predicts images and yields the predictions in the same order. Batches do not change the result of an image.

        Only images of the same padded size share a batch, because more padding beside an image would change its detections.

        Args:
            images: see :meth:`pixels`; read when they are needed. Of those that are files, the predictions know the path; arrays are not
                kept.
            batch_size: how many images to predict at once, if that many of one size are among the next ones.
            threshold: least score of the objects.

        Raises:
            InputError: an image cannot be read, or the threshold is not a score.
        """
        files: deque[Any] = deque()

        def inputs() -> Iterator[dict[str, Any]]:
            for image in images:
                files.append(image if isinstance(image, str | Path | dict) else None)
                yield self.prepare(self.pixels(image))

        for found in self.run(inputs(), batch_size=batch_size):
            file = files.popleft()
            yield Predictions.of(found, self.classes, file, image_format=self.image_format, threshold=threshold)

    def pixels(self, image: Any) -> np.ndarray:
        """Returns the pixels (H, W, C) of an image in :attr:`image_format`.

        Args:
            image: a path; the bytes of a file; a PIL image; an array (H, W) or (H, W, C); or a record of Detectron2 (``file_name`` and
                optionally ``window`` or ``slice``, see :func:`maskrcnn_ext.data.images.pixels.read_pixels`). The channels of an array are
                blue, green, red as OpenCV reads them, or those of the training for "raw".

        Raises:
            InputError: it cannot be read, has another type, or has values that are not finite.
        """
        return read_image(image, self.image_format, self.read)
