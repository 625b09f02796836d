"""Draws the ground truth and the predictions of a few test images at every evaluation."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode, Instances
from omegaconf import DictConfig
from torch import nn

from maskrcnn_ext.common.distributed import decide_on_main, unwrap_ddp
from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.tools.browse import to_bgr
from maskrcnn_ext.engine.hooks.evaluation import EvaluationHook, last_iteration
from maskrcnn_ext.engine.preserved_model import preserved_model
from maskrcnn_ext.ops.rle import encode_mask
from maskrcnn_ext.report.draw import DrawnObject, draw_objects, palette

logger = logging.getLogger(__name__)

_SIDE = 480  # pixels of the longer side of one picture
_GAP = 6  # between pictures, in pixels


@dataclass(frozen=True)
class PanelImage:
    """One image of the panel.

    Attributes:
        record: Detectron2's dict with the annotations, as stored.
        sample: the dict that the model takes.
    """

    record: dict[str, Any]
    sample: dict[str, Any]


@dataclass(frozen=True)
class PanelData:
    """The images of a panel and the class names; `classes` is empty if the names are unknown."""

    images: list[PanelImage]
    classes: list[str]


class ImagePanel(EvaluationHook):
    """Writes ``panels/<iteration>.png`` with one row per image, ground truth | prediction, and the rows to TensorBoard.

    Example::

        train.image_panel.count=8
    """

    def __init__(
        self,
        period: int,
        model: nn.Module,
        load: Callable[[], PanelData],
        *,
        output_dir: str,
        min_score: float = 0.5,
    ) -> None:
        """Prepares; the main process draws, the others wait.

        Args:
            period: ``train.eval_period``.
            model: may be wrapped in DistributedDataParallel.
            load: returns the images, such as :func:`load_panel_data`; called once.
            output_dir: parent folder of ``panels``.
            min_score: detections with a lower score are not drawn.
        """
        super().__init__(period)
        self._model = unwrap_ddp(model)
        self._load = load
        self._folder = Path(output_dir) / "panels"
        self._min_score = min_score
        self._data: PanelData | None = None

    def at_evaluation(self) -> None:
        """Runs the model on the images and draws the panel.

        Raises:
            InputError: an image cannot be read, or the panel cannot be written.
        """
        decide_on_main(self._draw_panel)

    def _draw_panel(self) -> None:
        with preserved_model(self._model):
            if self._data is None:
                self._data = self._load()
            self._model.eval()
            rows = [self._draw_row(image, self._data.classes) for image in self._data.images]
        if rows:
            self._write_panel(rows)

    def _draw_row(self, image: PanelImage, classes: Sequence[str]) -> np.ndarray:
        """Returns ground truth and prediction side by side, (height, width, 3), uint8, BGR."""
        found = self._model([image.sample])[0]["instances"].to("cpu")
        pixels = to_bgr(read_pixels(image.record, "raw"), "raw")
        scale = _SIDE / max(pixels.shape[:2])
        truth = draw_objects(pixels, _make_truth_items(image.record, classes), scale=scale)
        predicted = draw_objects(
            pixels, _make_prediction_items(found[found.scores >= self._min_score], classes), scale=scale
        )
        gap = np.full((truth.shape[0], _GAP, 3), 255, np.uint8)
        return np.hstack([truth, gap, predicted])

    def _write_panel(self, rows: list[np.ndarray]) -> None:
        iteration = last_iteration(self.trainer)
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(r, ((0, _GAP), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
        file = self._folder / f"{iteration:07d}.png"  # as many digits as in the names of checkpoints
        write_atomic(file, cv2.imencode(".png", np.vstack(padded))[1].tobytes())
        for index, row in enumerate(rows):
            self.trainer.storage.put_image(f"panel/{index}", np.ascontiguousarray(row[:, :, ::-1].transpose(2, 0, 1)))
        logger.info("Ground truth and predictions of %d test images: %s", len(rows), file)


def load_panel_data(cfg: DictConfig, count: int) -> PanelData:
    """Returns the first `count` images of ``dataloader.test``, mapped as for the test, and the class names of the data set."""
    test = cfg.dataloader.test
    records = list(itertools.islice(instantiate(test.dataset), count))
    mapper = instantiate(test.mapper)
    images = [PanelImage(record, mapper(copy.deepcopy(record))) for record in records]
    names = test.dataset.get("names") or []
    name = names if isinstance(names, str) else next(iter(names), None)
    classes = MetadataCatalog.get(name).get("thing_classes") if name else None
    return PanelData(images, list(classes or []))


def _make_truth_items(record: dict[str, Any], classes: Sequence[str]) -> list[DrawnObject]:
    items = []
    for index, annotation in enumerate(record.get("annotations", [])):
        box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        label, color = _choose_label_and_color(annotation["category_id"], index, classes)
        items.append(DrawnObject(_to_drawable(annotation.get("segmentation")), tuple(box), label, color))
    return items


def _to_drawable(segmentation: Any) -> Any:
    """Returns polygons and RLEs unchanged, a mask as an RLE, and None for an empty outline, whose box is drawn instead."""
    if isinstance(segmentation, np.ndarray):
        return encode_mask(segmentation.astype(bool))
    if isinstance(segmentation, list):
        segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]
    return segmentation or None


def _make_prediction_items(found: Instances, classes: Sequence[str]) -> list[DrawnObject]:
    items = []
    masks = found.pred_masks if found.has("pred_masks") else [None] * len(found)
    # The best detection last, so that it is drawn over the others.
    for index in found.scores.argsort().tolist():
        label, color = _choose_label_and_color(int(found.pred_classes[index]), index, classes)
        mask = masks[index]
        rle = encode_mask(mask.numpy().astype(bool)) if mask is not None else None
        box = found.pred_boxes.tensor[index].tolist()
        items.append(DrawnObject(rle, tuple(box), f"{label} {found.scores[index]:.2f}".strip(), color))
    return items


def _choose_label_and_color(category: int, index: int, classes: Sequence[str]) -> tuple[str, tuple[int, int, int]]:
    """Returns label and colour. With one class every object gets another colour, with several every class."""
    if len(classes) == 1:
        return "", palette(index)
    name = classes[category] if category < len(classes) else str(category)
    return name, palette(category)
