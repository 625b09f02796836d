"""Prediction of large images, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances

from maskrcnn_ext.common.ranges import is_at_least, is_share
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.base_predictor import BasePredictor
from maskrcnn_ext.inference.jobs.journal import Journal, Journals
from maskrcnn_ext.inference.predictions import Predictions
from maskrcnn_ext.inference.results import from_coco, to_coco
from maskrcnn_ext.inference.tiling.merge import merge_tiles
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
from maskrcnn_ext.ops.tile_grid import TileGrid

Predict = Callable[[list[np.ndarray]], Sequence[Instances]]
Results = list[dict[str, Any]]


class TiledPredictor:
    """A :class:`maskrcnn_ext.Predictor` for images that are larger than those of the training, or than memory.

    It returns the same type as the predictor. Objects should have the size in a tile that they had in the images of the training:
    the config's test augmentations, such as ResizeShortestEdge, are applied to each tile.

    Example:
        ::

            predict = maskrcnn_ext.TiledPredictor(maskrcnn_ext.Predictor("output/run"), tile=1024)
            instances = predict("scene.tif")
    """

    def __init__(
        self,
        predictor: BasePredictor,
        *,
        tile: int = 1024,
        overlap: float = 0.2,
        batch_size: int = 1,
        agreement: float = 0.5,
    ) -> None:
        """Stores the arguments, see :func:`predict_tiled`."""
        self.predictor = predictor
        self.tile = tile
        self.overlap = overlap
        self.batch_size = batch_size
        self.agreement = agreement

    def __call__(
        self,
        image: str | Path | dict[str, Any] | np.ndarray,
        *,
        journal: Journal | Journals | None = None,
        key: str = "",
        threshold: float = 0.0,
    ) -> Predictions:
        """Predicts an image.

        Args:
            image: a file, a record of Detectron2, or an array (H, W, C) in the predictor's ``image_format``.
            journal: stores finished tiles, see :func:`predict_tiled`.
            key: the image's key in the journal.
            threshold: least score of the objects.

        Raises:
            InputError: it cannot be read, or the threshold is not a score.
        """
        found = predict_tiled(
            self._predict,
            WindowedImage(image, read=self.predictor.read),
            tile=self.tile,
            overlap=self.overlap,
            batch_size=self.batch_size,
            agreement=self.agreement,
            journal=journal,
            key=key,
        )
        file = None if isinstance(image, np.ndarray) else image
        predictor = self.predictor
        return Predictions.of(found, predictor.classes, file, image_format=predictor.image_format, threshold=threshold)

    def _predict(self, tiles: list[np.ndarray]) -> list[Instances]:
        return list(self.predictor.run(map(self.predictor.prepare, tiles), batch_size=self.batch_size))


def predict_tiled(
    predict: Predict,
    image: WindowedImage,
    *,
    tile: int = 1024,
    overlap: float = 0.2,
    batch_size: int = 1,
    agreement: float = 0.5,
    journal: Journal | Journals | None = None,
    key: str = "",
) -> Instances:
    """Predicts an image tile by tile and merges the tiles' detections of each object by their masks, see :func:`merge_tiles`.

    Memory holds one batch of tiles, and all masks as RLEs. A tile whose pixels are all equal, such as beyond the border of a map, is not
    predicted and has no objects.

    Args:
        predict: maps tiles (H, W, C) to their instances, with masks as RLEMasks.
        image: the image.
        tile: side of the tiles in pixels.
        overlap: overlap of neighbouring tiles, as a fraction of the side; detections are matched there.
        batch_size: tiles that are predicted at once. It may change the last digits of the results.
        agreement: least IoU of the masks of two tiles in their overlap, or covered fraction of a part, for one object.
        journal: finished tiles are read from it and added to it. Its identity must name all they depend on: weights, tile, overlap.
        key: the image's key in the journal; the key of a tile is ``<key>@<x>,<y>``.

    Returns:
        The objects of the image, the highest score first.

    Raises:
        InputError: the image cannot be read, an argument is out of range, or the image has masks and 2**32 pixels or more, which COCO's
            RLE cannot encode.

    Example:
        ::

            instances = predict_tiled(lambda tiles: [my_model(tile) for tile in tiles], WindowedImage("scene.tif"), tile=512)
    """
    if not is_at_least(batch_size, 1):
        raise InputError(f"batch_size={batch_size}: expected 1 or more")
    if not is_share(agreement, above_zero=True):
        raise InputError(f"agreement={agreement}: expected a fraction above 0 and up to 1")
    grid = TileGrid(image.width, image.height, tile, overlap)
    keys = [f"{key}@{x},{y}" for x, y, _, _ in grid.windows]
    done: Journal | Journals | dict[str, Results] = {} if journal is None else journal
    missing = (index for index, name in enumerate(keys) if name not in done)
    while batch := list(islice(missing, batch_size)):
        results = _predict_batch(predict, [image.read(grid.windows[index]) for index in batch])
        if image.height * image.width >= 2**32 and any(
            "segmentation" in result for found in results for result in found
        ):
            raise InputError(
                f"an image of {image.width} x {image.height} has 2^32 pixels or more, and an RLE cannot encode its masks: predict "
                "it in parts (records with a `window`, or files cut out by gdal_translate -srcwin)"
            )
        for index, found in zip(batch, results, strict=True):
            if isinstance(done, dict):
                done[keys[index]] = found
            else:
                done.add(keys[index], found)
    merged = merge_tiles([done[name] for name in keys], grid, agreement)
    return from_coco(merged, (image.height, image.width), _class_range(result["category_id"] for result in merged))


def _predict_batch(predict: Predict, tiles: list[np.ndarray]) -> list[Results]:
    """Returns the COCO results of each tile."""
    is_blank = [bool((tile == tile[:1, :1]).all()) for tile in tiles]
    shown = [tile for tile, blank in zip(tiles, is_blank, strict=True) if not blank]
    found = iter(predict(shown) if shown else ())
    return [
        [] if blank else to_coco(instances := next(found), None, _class_range(instances.pred_classes.tolist()))
        for blank in is_blank
    ]


def _class_range(indices: Iterable[int]) -> range:
    """Returns the class indices up to the largest one, for use as category ids."""
    return range(max(indices, default=-1) + 1)
