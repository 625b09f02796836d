"""Simple Copy-Paste (Ghiasi et al., arXiv:2012.07177): pastes objects of another image over an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from detectron2.structures import Instances
from torch.utils.data import Dataset

from maskrcnn_ext.common.ranges import is_at_least
from maskrcnn_ext.data.mapping.augmentation.mixing import (
    Mapper,
    MixingMapper,
    Sample,
    areas_of,
    masks_of,
    move_keypoints,
    region_of,
    set_unlabelled,
    tight_boxes,
    with_masks,
)
from maskrcnn_ext.errors import InputError


class CopyPasteMapper(MixingMapper):
    """Pastes a random number of objects of another image over some of the images.

    Pixels that a pasted object covers are removed from the masks below it. Boxes are recomputed from the visible masks, and objects with
    too few visible pixels are dropped. Objects without an outline, whose box the mapper may use as their mask, are not pasted.

    Example:
        In a LazyConfig::

            dataloader.train.mapper.instance_mask_format = "bitmask"
            dataloader.train.mapper = L(CopyPasteMapper)(mapper=dataloader.train.mapper, dataset="${..dataset}")
    """

    def __init__(
        self,
        *,
        mapper: Mapper,
        dataset: Sequence[dict[str, Any]] | Dataset,
        probability: float = 0.5,
        level: Literal["scene", "instance"] = "scene",
        max_instances: int | None = None,
        min_visible: float = 0.1,
    ) -> None:
        """Wraps a mapper.

        Args:
            mapper: returns "image" (C, H, W) and "instances" with bit masks; it maps both images.
            dataset: the records to draw the other image from.
            probability: of pasting into an image.
            level: "scene" keeps the positions of the objects, as in the paper; if the images differ in size, all objects are shifted by
                the same random offset. "instance" pastes each object at a random position.
            max_instances: the most objects to paste; None for all objects of the other image.
            min_visible: an object is dropped if a smaller share of its pixels than this is visible.

        Raises:
            InputError: a number is out of range, the level is unknown, or the data set is empty.
        """
        super().__init__(mapper=mapper, dataset=dataset, probability=probability, min_visible=min_visible)
        if level not in ("scene", "instance"):
            raise InputError(f"CopyPasteMapper: level is {level!r}, expected 'scene' or 'instance'")
        if max_instances is not None and not is_at_least(max_instances, 1):
            raise InputError(f"CopyPasteMapper: max_instances is {max_instances}, expected at least 1")
        self.level = level
        self.max_instances = max_instances

    def mix(self, sample: Sample) -> Sample:
        """Pastes objects of one other image, if it has any; see :meth:`MixingMapper.mix`."""
        masks_of(sample)  # raises for a wrong configuration even if there is nothing to paste
        other = self.mapper(_outlined(self.draw_record()))
        if other is None or not len(other["instances"]):
            return sample
        masks = masks_of(other)
        limit = min(len(masks), self.max_instances or len(masks))
        chosen = np.random.permutation(len(masks))[: np.random.randint(1, limit + 1)]
        size, boxes = sample["image"].shape[1:], tight_boxes(masks)[chosen].int().tolist()
        if self.level == "scene":
            offset = _random_offset((0, 0, *masks.shape[:0:-1]), size)
            offsets = [offset] * len(chosen)
        else:
            offsets = [_random_offset(box, size) for box in boxes]
        return paste(sample, other, chosen.tolist(), offsets, min_visible=self.min_visible)


def _outlined(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record without its objects that have no outline."""
    annotations = [each for each in record.get("annotations", ()) if each.get("segmentation")]
    return {**record, "annotations": annotations} if "annotations" in record else record


def paste(
    sample: Sample, other: Sample, chosen: list[int], offsets: list[tuple[int, int]], *, min_visible: float
) -> Sample:
    """Returns a new sample with pasted objects, each over those before it.

    Args:
        sample: with "image" (C, H, W) and "instances" with bit masks.
        other: a sample of any size to take objects from.
        chosen: indices of the objects to paste.
        offsets: (x, y) in pixels, the shift of each pasted object.
        min_visible: see :class:`CopyPasteMapper`.
    """
    image, instances, theirs = sample["image"].clone(), sample["instances"], masks_of(other)
    height, width = image.shape[1:]
    own = masks_of(sample)
    count = len(own)
    masks = torch.zeros(count + len(chosen), height, width, dtype=torch.bool)
    masks[:count] = own
    top = torch.full((height, width), -1, dtype=torch.int32)  # the last object pasted at a pixel
    areas = torch.cat([areas_of(own), areas_of(theirs)[chosen]])
    parts = [instances]
    boxes = tight_boxes(theirs)[chosen].int().tolist()
    for layer, (index, (x0, y0, x1, y1), (dx, dy)) in enumerate(zip(chosen, boxes, offsets, strict=True), count):
        part = other["instances"][index : index + 1]
        parts.append(Instances((height, width), **part.get_fields()))
        move_keypoints(parts[-1], (1, 1), (dx, dy), (0, 0, width, height))
        left, upper, right, lower = max(x0 + dx, 0), max(y0 + dy, 0), min(x1 + dx, width), min(y1 + dy, height)
        if left >= right or upper >= lower:
            continue
        rows, columns = slice(upper, lower), slice(left, right)
        shape = theirs[index, upper - dy : lower - dy, left - dx : right - dx]
        pixels = other["image"][:, upper - dy : lower - dy, left - dx : right - dx]
        if shape.sum() < max(1, min_visible * areas[layer]):
            continue  # too little of it is inside the image: paste neither pixels nor mask
        image[:, rows, columns] = torch.where(shape, pixels, image[:, rows, columns])
        masks[:layer, rows, columns] &= ~shape
        masks[layer, rows, columns] = shape
        top[rows, columns][shape] = layer
    visible = areas_of(masks)
    keep = (visible > 0) & (visible >= min_visible * areas)
    merged = with_masks(parts, masks)
    _hide_keypoints(merged, top)
    kept = merged[keep]
    set_unlabelled(kept, region_of(sample) & (top < 0), [sample])  # a pasted object hides the region below it
    return {**sample, "image": image, "instances": kept}


def _hide_keypoints(instances: Instances, top: torch.Tensor) -> None:
    """Sets the visibility of keypoints that a later object covers from 2 to 1 (labelled but not visible), in place."""
    if not instances.has("gt_keypoints"):
        return
    points = instances.gt_keypoints.tensor
    height, width = top.shape
    x, y = (points[..., axis].long().clamp(0, size - 1) for axis, size in ((0, width), (1, height)))
    layers = torch.arange(len(points))[:, None]
    points[..., 2][(points[..., 2] == 2) & (top[y, x] > layers)] = 1


def _random_offset(box: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """Returns a random shift (x, y) that keeps a box inside an image (H, W), or the image inside a larger box."""
    x0, y0, x1, y1 = box
    ranges = [sorted((-low, limit - high)) for low, high, limit in ((x0, x1, size[1]), (y0, y1, size[0]))]
    dx, dy = (int(np.random.randint(low, high + 1)) for low, high in ranges)
    return dx, dy
