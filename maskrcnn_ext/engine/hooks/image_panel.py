"""The same few test images at every evaluation: what is there beside what the model finds."""

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
    """What a panel shows; `classes` is empty where the class names are not known."""

    images: list[PanelImage]
    classes: list[str]


class ImagePanel(EvaluationHook):
    """Writes ``panels/<iteration>.png`` at every evaluation, a row an image, truth | prediction, and the rows to TensorBoard."""

    def __init__(
        self,
        period: int,
        model: nn.Module,
        load: Callable[[], PanelData],
        *,
        output_dir: str,
        min_score: float = 0.5,
    ) -> None:
        """Draws on the main process; the others wait.

        Args:
            period: ``train.eval_period``.
            model: may be wrapped for several processes.
            load: gives, once, what to show, as :func:`panel_data`.
            output_dir: folder of ``panels``.
            min_score: detections below it are not drawn.
        """
        super().__init__(period)
        self._model = unwrap_ddp(model)
        self._load = load
        self._folder = Path(output_dir) / "panels"
        self._min_score = min_score
        self._data: PanelData | None = None

    def at_evaluation(self) -> None:
        """Runs the model on the images and draws.

        Raises:
            InputError: an image cannot be read.
        """
        decide_on_main(self._show)

    def _show(self) -> None:
        with preserved_model(self._model):
            if self._data is None:
                self._data = self._load()
            self._model.eval()
            rows = [self._row(image, self._data.classes) for image in self._data.images]
        if rows:
            self._write(rows)

    def _row(self, image: PanelImage, classes: Sequence[str]) -> np.ndarray:
        """Returns (height, width, 3), uint8, BGR."""
        found = self._model([image.sample])[0]["instances"].to("cpu")
        pixels = to_bgr(read_pixels(image.record, "raw"), "raw")
        scale = _SIDE / max(pixels.shape[:2])
        truth = draw_objects(pixels, _true_items(image.record, classes), scale=scale)
        predicted = draw_objects(pixels, _found_items(found[found.scores >= self._min_score], classes), scale=scale)
        gap = np.full((truth.shape[0], _GAP, 3), 255, np.uint8)
        return np.hstack([truth, gap, predicted])

    def _write(self, rows: list[np.ndarray]) -> None:
        iteration = last_iteration(self.trainer)
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(r, ((0, _GAP), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{iteration:07d}.png"  # as many digits as in the names of checkpoints
        file.write_bytes(cv2.imencode(".png", np.vstack(padded))[1].tobytes())
        for index, row in enumerate(rows):
            self.trainer.storage.put_image(f"panel/{index}", np.ascontiguousarray(row[:, :, ::-1].transpose(2, 0, 1)))
        logger.info("Truth and prediction of %d test images: %s", len(rows), file)


def panel_data(cfg: DictConfig, count: int) -> PanelData:
    """Returns the first `count` images of ``dataloader.test``, with its mapper, and the class names of its data set."""
    test = cfg.dataloader.test
    records = list(itertools.islice(instantiate(test.dataset), count))
    mapper = instantiate(test.mapper)
    images = [PanelImage(record, mapper(copy.deepcopy(record))) for record in records]
    names = test.dataset.get("names") or []
    name = names if isinstance(names, str) else next(iter(names), None)
    classes = MetadataCatalog.get(name).get("thing_classes") if name else None
    return PanelData(images, list(classes or []))


def _true_items(record: dict[str, Any], classes: Sequence[str]) -> list[DrawnObject]:
    items = []
    for index, annotation in enumerate(record.get("annotations", [])):
        box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        label, color = _look(annotation["category_id"], index, classes)
        items.append(DrawnObject(_drawable(annotation.get("segmentation")), tuple(box), label, color))
    return items


def _drawable(segmentation: Any) -> Any:
    """Polygons and RLEs as they are, a mask as an RLE; None for an outline that is empty, whose box is drawn."""
    if isinstance(segmentation, np.ndarray):
        return encode_mask(segmentation.astype(bool))
    if isinstance(segmentation, list):
        segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]
    return segmentation or None


def _found_items(found: Instances, classes: Sequence[str]) -> list[DrawnObject]:
    items = []
    masks = found.pred_masks if found.has("pred_masks") else [None] * len(found)
    # The best last: it is drawn over the others.
    for index in found.scores.argsort().tolist():
        label, color = _look(int(found.pred_classes[index]), index, classes)
        mask = masks[index]
        rle = encode_mask(mask.numpy().astype(bool)) if mask is not None else None
        box = found.pred_boxes.tensor[index].tolist()
        items.append(DrawnObject(rle, tuple(box), f"{label} {found.scores[index]:.2f}".strip(), color))
    return items


def _look(category: int, index: int, classes: Sequence[str]) -> tuple[str, tuple[int, int, int]]:
    """Returns label and colour. One class: colours tell objects apart. Several: they tell classes apart."""
    if len(classes) == 1:
        return "", palette(index)
    name = classes[category] if category < len(classes) else str(category)
    return name, palette(category)
