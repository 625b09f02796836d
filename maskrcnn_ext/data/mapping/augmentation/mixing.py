"""Shared parts of augmentations that mix several images: the base class, and functions for masks and keypoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.structures import BitMasks, Boxes, Instances
from torch.utils.data import Dataset

from maskrcnn_ext.common.ranges import is_share
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.unlabelled import IgnoreRegion, Unlabelled

Sample = dict[str, Any]
Mapper = Callable[[dict[str, Any]], Sample | None]


class MixingMapper(ABC):
    """Wraps a mapper, and mixes further samples of the data set into some of its samples.

    Random numbers come from numpy's global generator, as in Detectron2's augmentations.
    """

    def __init__(
        self,
        *,
        mapper: Mapper,
        dataset: Sequence[dict[str, Any]] | Dataset,
        probability: float,
        min_visible: float,
    ) -> None:
        """Wraps a mapper; the subclasses document the arguments."""
        for name, share in (("probability", probability), ("min_visible", min_visible)):
            if not is_share(share):
                raise InputError(f"{type(self).__name__}: {name} is {share}, expected a number from 0 to 1")
        if not len(dataset):
            raise InputError(f"{type(self).__name__}: the data set it draws from is empty")
        self.mapper = mapper
        # As in Detectron2's loader: all workers share one array. Each would copy a list, because reference counts write to its pages.
        self.records = dataset if isinstance(dataset, Dataset) else DatasetFromList(list(dataset), copy=False)
        self.probability = probability
        self.min_visible = min_visible

    def __call__(self, record: dict[str, Any]) -> Sample | None:
        """Maps a record, and mixes it with the given probability; returns None if the wrapped mapper does."""
        sample = self.mapper(record)
        if sample is None or np.random.uniform() >= self.probability:
            return sample
        return self.mix(sample)

    @abstractmethod
    def mix(self, sample: Sample) -> Sample:
        """Returns a new, mixed sample; does not change the given one."""

    def draw(self) -> Sample | None:
        """Returns the sample of a random record of the data set; None if the record is bad."""
        return self.mapper(self.draw_record())

    def draw_record(self) -> dict[str, Any]:
        """Returns a random record of the data set."""
        record: dict[str, Any] = self.records[np.random.randint(len(self.records))]
        return record


def masks_of(sample: Sample) -> torch.Tensor:
    """Returns the masks (N, H, W), bool, of a sample.

    Raises:
        InputError: the sample has objects without bit masks.
    """
    instances = sample["instances"]
    if not len(instances):  # Detectron2 leaves the field out
        return torch.zeros(0, *instances.image_size, dtype=torch.bool)
    if any(instances.has(name) for name in ("gt_has_mask", "gt_image", "gt_point_coords")):
        raise InputError(
            f"{sample.get('file_name', 'a sample')}: mixing images needs masks, not boxes or points: set "
            "dataloader.train.mapper.missing_masks=box or drop (of the innermost mapper), or mix no images"
        )
    masks = instances.get("gt_masks") if instances.has("gt_masks") else None
    if not isinstance(masks, BitMasks):
        raise InputError(
            f"{sample.get('file_name', 'a sample')}: mixing images needs bit masks: set dataloader.train.mapper."
            "use_instance_mask=True and instance_mask_format=bitmask (of the innermost mapper)"
        )
    return masks.tensor.bool()


def with_masks(parts: Sequence[Instances], masks: torch.Tensor) -> Instances:
    """Concatenates instances, and sets their masks (N, H, W), the image size and tight boxes."""
    height, width = masks.shape[1:]
    joined = [Instances((height, width), **_without_shapes(part)) for part in parts if len(part)]
    # Instances.cat() needs at least one part.
    instances = Instances.cat(joined) if joined else Instances((height, width), **_without_shapes(parts[0]))
    instances.gt_boxes, instances.gt_masks = Boxes(tight_boxes(masks)), BitMasks(masks)
    return instances


def _without_shapes(part: Instances) -> dict[str, Any]:
    own = ("gt_boxes", "gt_masks", "gt_unlabelled")
    return {name: value for name, value in part.get_fields().items() if name not in own}


def region_of(sample: Sample) -> torch.Tensor:
    """Returns the ignore regions of a sample, (H, W) bool; False everywhere if it has none."""
    unlabelled = _unlabelled_of(sample)
    if unlabelled is None or unlabelled.region is None:
        return torch.zeros(sample["image"].shape[1:], dtype=torch.bool)
    return unlabelled.region.mask


def _unlabelled_of(sample: Sample) -> Unlabelled | None:
    instances = sample["instances"]
    return instances.get("gt_unlabelled") if instances.has("gt_unlabelled") else None


def set_unlabelled(instances: Instances, region: torch.Tensor, backgrounds: Sequence[Sample]) -> None:
    """Sets ``gt_unlabelled`` of mixed instances, in place; nothing if their labels are complete.

    Args:
        instances: of the mixed image.
        region: (H, W) bool, its ignore regions.
        backgrounds: the samples that show their background. A class is labelled in the mixed image if it is in all of them.
    """
    known = [found.labelled_classes for sample in backgrounds if (found := _unlabelled_of(sample)) is not None]
    lists = [set(classes.tolist()) for classes in known if classes is not None]
    labelled = torch.tensor(sorted(set.intersection(*lists)), dtype=torch.int64) if lists else None
    if labelled is not None or region.any():
        instances.gt_unlabelled = Unlabelled(len(instances), IgnoreRegion(region) if region.any() else None, labelled)


def tight_boxes(masks: torch.Tensor) -> torch.Tensor:
    """Returns the boxes (N, 4), float32, of masks (N, H, W), bool; x1 and y1 are exclusive. An empty mask has a box of zeros.

    Example:
        >>> mask = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> mask[0, 1:3, 2:4] = True
        >>> tight_boxes(mask)
        tensor([[2., 1., 4., 3.]])
    """
    rectangles = torch.tensor([cv2.boundingRect(mask) for mask in _bytes(masks)], dtype=torch.float32).reshape(-1, 4)
    return torch.cat([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], dim=1)


def areas_of(masks: torch.Tensor) -> torch.Tensor:
    """Returns the number of pixels (N,), int64, of masks (N, H, W), bool."""
    return torch.tensor([cv2.countNonZero(mask) for mask in _bytes(masks)], dtype=torch.int64)


def _bytes(masks: torch.Tensor) -> np.ndarray:
    """Returns a uint8 view of masks for OpenCV, which is ten times faster than torch for boxes and areas."""
    pixels: np.ndarray = masks.contiguous().numpy().view(np.uint8)
    return pixels


def move_keypoints(
    instances: Instances, scale: tuple[float, float], offset: tuple[int, int], window: tuple[int, int, int, int]
) -> None:
    """Scales and then shifts keypoints by (x, y), in place. Keypoints outside of a window (x0, y0, x1, y1) become unlabelled."""
    if not instances.has("gt_keypoints"):
        return
    points = instances.gt_keypoints.tensor.clone()
    points[..., :2] = points[..., :2] * torch.tensor(scale) + torch.tensor(offset)
    x, y = points[..., 0], points[..., 1]
    x0, y0, x1, y1 = window
    points[(x < x0) | (y < y0) | (x > x1) | (y > y1) | (points[..., 2] == 0)] = 0
    instances.gt_keypoints = type(instances.gt_keypoints)(points)
