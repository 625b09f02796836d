"""Prediction of large images, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.jobs.journal import Journal, Journals
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.inference.results import from_coco, to_coco
from maskrcnn_ext.inference.tiling.merge import merge_tiles
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
from maskrcnn_ext.ops.tile_grid import TileGrid

Predict = Callable[[list[np.ndarray]], Sequence[Instances]]
Results = list[dict[str, Any]]


class TiledPredictor:
    """A :class:`Predictor` for images that are larger than what its model was trained on, or than memory.

    ``TiledPredictor(predictor, tile=1024)("scene.tif")`` returns what the predictor returns for an image. Tiles should show objects in
    the size that the training's images did; the config's test augmentations, such as ResizeShortestEdge, are applied to each.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        tile: int = 1024,
        overlap: float = 0.2,
        batch_size: int = 1,
        agreement: float = 0.5,
    ) -> None:
        """See :func:`predict_tiled`."""
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
    ) -> Instances:
        """Predicts an image.

        Args:
            image: a file, a record, or an array (H, W, C) in the predictor's ``image_format``.
            journal: see :func:`predict_tiled`.
            key: as `journal`.

        Raises:
            InputError: it cannot be read.
        """
        return predict_tiled(
            self._predict,
            WindowedImage(image, self.predictor.image_format),
            tile=self.tile,
            overlap=self.overlap,
            batch_size=self.batch_size,
            agreement=self.agreement,
            journal=journal,
            key=key,
        )

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
    """Predicts an image tile by tile and merges what the tiles show of each object, by its masks; see :func:`merge_tiles`.

    A batch of tiles is in memory at a time, and every mask as an RLE. A tile whose pixels are all the same, such as those beyond the
    border of a map, has no objects.

    Args:
        predict: from tiles (H, W, C) to their objects; masks as RLEMasks.
        image: the image.
        tile: side of the tiles in pixels.
        overlap: of neighbouring tiles, as share of the side; what objects are told by at the seams.
        batch_size: tiles that are predicted at once; how they meet in batches changes a model's last digits.
        agreement: least IoU, or covered share of a part, of two tiles' masks in what both tiles see, for them to be of one object.
        journal: finished tiles are taken from there and added; its identity has to name what they depend on: weights, tile, overlap.
        key: of the image in the journal; that of a tile is ``<key>@<x>,<y>``.

    Returns:
        The objects of the image, those with the highest score first.

    Raises:
        InputError: the image cannot be read, an argument that is none, or masks of an image of 2**32 pixels or more, which COCO's
            RLE cannot hold.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: expected 1 or more")
    if not 0 < agreement <= 1:
        raise InputError(f"agreement={agreement}: expected a share, above 0 and up to 1")
    grid = TileGrid(image.width, image.height, tile, overlap)
    keys = [f"{key}@{x},{y}" for x, y, _, _ in grid.windows]
    done: Journal | Journals | dict[str, Results] = {} if journal is None else journal
    missing = (index for index, name in enumerate(keys) if name not in done)
    while batch := list(islice(missing, batch_size)):
        results = _predict_batch(predict, [image.read(grid.windows[index]) for index in batch])
        if image.height * image.width >= 2**32 and any("segmentation" in own for found in results for own in found):
            raise InputError(
                f"an image of {image.width} x {image.height} has 2^32 pixels or more, and an RLE cannot hold masks of it: predict it "
                "in parts (records with a `window`, or files that gdal_translate -srcwin cuts out)"
            )
        for index, found in zip(batch, results, strict=True):
            if isinstance(done, dict):
                done[keys[index]] = found
            else:
                done.add(keys[index], found)
    merged = merge_tiles([done[name] for name in keys], grid, agreement)
    return from_coco(merged, (image.height, image.width), _classes(own["category_id"] for own in merged))


def _predict_batch(predict: Predict, tiles: list[np.ndarray]) -> list[Results]:
    """COCO's results of each tile."""
    is_blank = [bool((tile == tile[:1, :1]).all()) for tile in tiles]
    shown = [tile for tile, blank in zip(tiles, is_blank, strict=True) if not blank]
    found = iter(predict(shown) if shown else ())
    return [
        [] if blank else to_coco(instances := next(found), None, _classes(instances.pred_classes.tolist()))
        for blank in is_blank
    ]


def _classes(indices: Iterable[int]) -> range:
    """The classes up to the last one met, which stand for themselves."""
    return range(max(indices, default=-1) + 1)
