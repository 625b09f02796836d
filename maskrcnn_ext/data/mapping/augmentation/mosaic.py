"""Mosaic augmentation (Bochkovskiy et al., arXiv:2004.10934): combines four images into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import Instances
from torch.nn import functional as F
from torch.utils.data import Dataset

from maskrcnn_ext.data.mapping.augmentation.mixing import (
    Mapper,
    MixingMapper,
    Sample,
    areas_of,
    masks_of,
    move_keypoints,
    region_of,
    set_unlabelled,
    with_masks,
)
from maskrcnn_ext.errors import InputError


class MosaicMapper(MixingMapper):
    """Turns some images into mosaics of themselves and three other images; the size of the image does not change.

    The four tiles meet at a random point. Each shows a random crop of its image, scaled to just fill the tile, so objects become smaller
    and appear in more contexts. This mapper and :class:`~maskrcnn_ext.data.mapping.augmentation.copy_paste.CopyPasteMapper` can wrap each
    other.

    Example:
        In a LazyConfig::

            dataloader.train.mapper.instance_mask_format = "bitmask"
            dataloader.train.mapper = L(MosaicMapper)(mapper=dataloader.train.mapper, dataset="${..dataset}")
    """

    def __init__(
        self,
        *,
        mapper: Mapper,
        dataset: Sequence[dict[str, Any]] | Dataset,
        probability: float = 0.5,
        center: tuple[float, float] = (0.3, 0.7),
        min_visible: float = 0.1,
    ) -> None:
        """Wraps a mapper.

        Args:
            mapper: returns "image" (C, H, W) and "instances" with bit masks; it maps all four images.
            dataset: the records to draw the other images from.
            probability: of turning an image into a mosaic.
            center: the range from which the point where the tiles meet is drawn, as shares of width and height.
            min_visible: an object is dropped if its tile shows a smaller share of it than this.

        Raises:
            InputError: a number is out of range, or the data set is empty.
        """
        super().__init__(mapper=mapper, dataset=dataset, probability=probability, min_visible=min_visible)
        if not 0 < center[0] <= center[1] < 1:
            raise InputError(
                f"MosaicMapper: center is {tuple(center)}, expected two increasing numbers between 0 and 1"
            )
        self.center = (center[0], center[1])

    def mix(self, sample: Sample) -> Sample:
        """Returns a mosaic. A bad record is replaced by the sample itself."""
        samples = [sample, *(self.draw() or sample for _ in range(3))]
        order = np.random.permutation(4)
        height, width = sample["image"].shape[1:]
        x, y = (
            min(max(round(size * np.random.uniform(*self.center)), 1), size - 1) if size > 1 else 1
            for size in (width, height)
        )
        tiles = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        image = torch.empty_like(sample["image"])
        region = torch.zeros(height, width, dtype=torch.bool)
        parts, masks = [], []
        for index, tile in zip(order, tiles, strict=True):
            if tile[0] == tile[2] or tile[1] == tile[3]:  # of an image one pixel wide or high
                continue
            part, part_masks = _fill(image, region, tile, samples[index], self.min_visible)
            parts.append(part)
            masks.append(part_masks)
        instances = with_masks(parts, torch.cat(masks))
        set_unlabelled(instances, region, samples)
        return {**sample, "image": image, "instances": instances}


def _fill(
    image: torch.Tensor, region: torch.Tensor, tile: tuple[int, int, int, int], sample: Sample, min_visible: float
) -> tuple[Instances, torch.Tensor]:
    """Fills the tile (x0, y0, x1, y1) of an image (C, H, W) and of its ignore regions (H, W), in place.

    Returns:
        The tile's objects and their masks in the image.
    """
    x0, y0, x1, y1 = tile
    height, width = sample["image"].shape[1:]
    scale = max((x1 - x0) / width, (y1 - y0) / height)
    size = max(round(height * scale), y1 - y0), max(round(width * scale), x1 - x0)
    left, upper = (
        int(np.random.randint(0, whole - part + 1)) for whole, part in ((size[1], x1 - x0), (size[0], y1 - y0))
    )
    window = (..., slice(upper, upper + y1 - y0), slice(left, left + x1 - x0))

    pixels = F.interpolate(sample["image"][None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
    if not sample["image"].is_floating_point():
        pixels = pixels.round()
    image[:, y0:y1, x0:x1] = pixels[window].to(image.dtype)
    masks_there = masks_of(sample)
    whole = torch.zeros(len(masks_there), *size, dtype=torch.bool)
    for target, mask in zip(whole.numpy(), masks_there.numpy(), strict=True):
        target[:] = _resize(mask, size)
    region[y0:y1, x0:x1] = torch.from_numpy(_resize(region_of(sample).numpy(), size))[window]
    masks = torch.zeros(len(whole), *image.shape[1:], dtype=torch.bool)
    masks[:, y0:y1, x0:x1] = whole[window]

    instances = Instances((image.shape[1], image.shape[2]), **sample["instances"].get_fields())
    move_keypoints(instances, (size[1] / width, size[0] / height), (x0 - left, y0 - upper), tile)
    visible = areas_of(masks)
    keep = (visible > 0) & (visible >= min_visible * areas_of(whole))
    return instances[keep], masks[keep]


def _resize(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a mask (H, W), bool, resized to the nearest pixels."""
    resized = cv2.resize(mask.view(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.view(bool)
