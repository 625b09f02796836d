"""The objects of one image as Python programs and notebooks want them: names, a picture, rows of a table."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import PurePath
from typing import Any

from detectron2.structures import Instances
from PIL import Image

from maskrcnn_ext.common.ranges import is_share
from maskrcnn_ext.common.text import short_list
from maskrcnn_ext.data.images.memory import read_image
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.data.tools.browse import to_bgr
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.outputs.overlays import draw_overlay
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage
from maskrcnn_ext.inference.sources import InputImage


class Predictions(Instances):
    """Detectron2's ``Instances`` of one image that know their classes and their image.

    Indexing and ``to`` return the same kind. ``predictions["instances"]`` is the object itself, so that code for the dict that Detectron2's
    DefaultPredictor returns takes it as it is: supervision's ``Detections.from_detectron2``, SAHI, FiftyOne.

    Example:
        >>> import torch
        >>> from detectron2.structures import Boxes
        >>> found = Instances((8, 9), pred_boxes=Boxes([[1, 2, 4, 6]]), scores=torch.ones(1), pred_classes=torch.tensor([0]))
        >>> predictions = Predictions.of(found, Classes(("cell",), (1,)))
        >>> predictions, predictions.class_names
        (Predictions(8 x 9: 1 cell), ['cell'])
        >>> predictions.records()
        [{'class': 'cell', 'score': 1.0, 'x0': 1.0, 'y0': 2.0, 'x1': 4.0, 'y1': 6.0}]
    """

    # Set by `of`. Detectron2 keeps names with an underscore apart from the fields.
    _classes: Classes
    _image: Any
    _image_format: str

    @classmethod
    def of(
        cls, found: Instances, classes: Classes, image: Any = None, *, image_format: str = "BGR", threshold: float = 0.0
    ) -> Predictions:
        """Returns the predictions of an image.

        Args:
            found: ``pred_boxes`` in pixels of the image, ``scores``, ``pred_classes``, and optionally ``pred_masks`` and other fields.
            classes: the meaning of ``pred_classes``.
            image: what :meth:`plot` draws on, see :func:`maskrcnn_ext.data.images.memory.read_image`; None if it is not kept.
            image_format: the format in which the image is read.
            threshold: least score of the objects to keep.

        Raises:
            InputError: the threshold is not a score.
        """
        if not is_share(threshold):
            raise InputError(f"threshold={threshold}: expected a score from 0 to 1")
        kept = found[found.scores >= threshold] if threshold else found
        predictions = cls(kept.image_size, **kept.get_fields())
        predictions._classes, predictions._image, predictions._image_format = classes, image, image_format
        return predictions

    @property
    def class_names(self) -> list[str]:
        """The class name of each object."""
        return [self._classes.names[index] for index in self.pred_classes.tolist()]

    def __getitem__(self, item: Any) -> Predictions:
        """Returns selected objects; itself for "instances"."""
        if isinstance(item, str):
            if item != "instances":
                raise KeyError(item)
            return self
        return self._with(super().__getitem__(item))

    def to(self, *args: Any, **kwargs: Any) -> Predictions:
        """Returns a copy whose tensors are moved or cast."""
        return self._with(super().to(*args, **kwargs))

    def __repr__(self) -> str:
        counts = [f"{count} {name}" for name, count in Counter(self.class_names).most_common()]
        return f"Predictions({self.image_size[0]} x {self.image_size[1]}: {short_list(counts) if counts else 'none'})"

    def records(self) -> list[dict[str, Any]]:
        """Returns one flat dict an object, for ``pandas.DataFrame`` or a CSV file.

        Keys are ``image`` (if a file was predicted), ``class``, ``score``, ``x0``, ``y0``, ``x1``, ``y1`` in pixels of the image; ``area``,
        the pixels of the mask, ``mask_score`` and ``track_id`` if the objects have them.
        """
        file = self._image.get("file_name") if isinstance(self._image, dict) else self._image
        columns: dict[str, list[Any]] = {"image": [str(file)] * len(self)} if isinstance(file, str | PurePath) else {}
        columns |= {"class": self.class_names, "score": self.scores.tolist()}
        columns |= dict(zip(("x0", "y0", "x1", "y1"), self.pred_boxes.tensor.T.tolist(), strict=True))
        if self.has("pred_masks"):
            columns["area"] = self.pred_masks.areas().tolist()
        for key, name in (("mask_score", "pred_mask_scores"), ("track_id", "track_ids")):
            if self.has(name):
                columns[key] = self.get(name).tolist()
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def plot(self, image: Any = None, *, threshold: float = 0.5) -> Image.Image:
        """Draws the objects on the image. A notebook shows the result inline.

        Args:
            image: a path, an array, ...; None for the image that was predicted.
            threshold: least score of the objects that are drawn.

        Raises:
            InputError: the image is not known or cannot be read.
        """
        image = self._image if image is None else image
        if image is None:
            raise InputError("the image was not kept, only files are when many are predicted: pass it, plot(image)")
        pixels = read_image(image, self._image_format, partial(read_pixels, image_format=self._image_format))
        shown = self[self.scores.argsort(descending=True, stable=True)]
        shown = shown[shown.scores >= threshold]
        item = InputImage(key="", name="", image_id=0, image=None, file_name="")
        drawn = draw_overlay(PredictedImage(item, shown, self._classes, lambda: to_bgr(pixels, self._image_format)))
        return Image.fromarray(drawn[:, :, ::-1])

    def _with(self, found: Instances) -> Predictions:
        return self.of(found, self._classes, self._image, image_format=self._image_format)
