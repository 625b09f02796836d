"""Returns samples of a data set as arrays to draw: as stored, or as training sees them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import encode_mask

if TYPE_CHECKING:
    from detectron2.structures import Instances
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Seen:
    """One image with its objects.

    Attributes:
        file_name: the image's file; the file of the base image for a mixed one.
        image: (H, W, 3), uint8, BGR.
        classes: class index of every object.
        boxes: (N, 4), x0, y0, x1, y1 in pixels of `image`.
        segmentations: polygons, an RLE or None for every object.
        keypoints: (N, K, 3), x, y, visibility; None without keypoints.
    """

    file_name: str
    image: np.ndarray
    classes: list[int]
    boxes: np.ndarray
    segmentations: list[Any]
    keypoints: np.ndarray | None


def browse_stored(name: str, *, num: int, seed: int) -> list[Seen]:
    """Returns random images of a data set as stored, each at most once, in the order of the data set.

    Args:
        name: a registered data set, or a string such as ``coco:/data/train.json@/data/images``.
        num: how many; fewer if the data set is smaller.
        seed: of the choice.

    Raises:
        InputError: the data set is unknown, or an image or annotation is bad.
    """
    from maskrcnn_ext.data.mapping.mapper import SafeMapper
    from maskrcnn_ext.data.registry.catalog import get_dataset_dicts

    records = get_dataset_dicts(name, filter_empty=False)
    chosen = sorted(np.random.default_rng(seed).permutation(len(records))[:num].tolist())
    image_format = readable_format(records[chosen[0]]) if chosen else "BGR"
    mapper = SafeMapper(
        True,
        augmentations=[],
        image_format=image_format,
        use_instance_mask=any("segmentation" in a for record in records for a in record.get("annotations", [])),
        use_keypoint=True,
        strict=True,
    )
    return [_see(mapper(records[index]), image_format) for index in chosen]


def browse_training(cfg: DictConfig, *, num: int, seed: int) -> list[Seen]:
    """Returns the first samples of the config's training loader, after sampling and augmentation.

    Args:
        cfg: a LazyConfig with ``dataloader.train``; its batch size and number of workers are ignored.
        num: how many.
        seed: of the sampler and the augmentations, unless the config sets theirs.

    Raises:
        InputError: the config has no training loader, or the loader rejects the data.
    """
    from detectron2.config import instantiate

    from maskrcnn_ext.common.random_state import seeded

    if "dataloader" not in cfg or "train" not in cfg.dataloader:
        raise InputError("the config has no dataloader.train: give one that trains, `maskrcnn-ext configs` lists some")
    cfg = copy.deepcopy(cfg)
    cfg.dataloader.train.update(total_batch_size=1, num_workers=0)
    image_format = _image_format(cfg.dataloader.train.mapper)
    with seeded(seed):
        loader = instantiate(cfg.dataloader.train)
        return [_see(sample, image_format) for sample in itertools.islice(_samples(loader), num)]


def _samples(loader: Any) -> Iterator[dict[str, Any]]:
    for batch in loader:
        yield from batch


def _image_format(mapper: DictConfig) -> str:
    """Returns the image format of a mapper, or of the mapper that it wraps."""
    while "image_format" not in mapper and "mapper" in mapper:
        mapper = mapper.mapper
    return str(mapper.get("image_format", "BGR"))


def _see(sample: dict[str, Any], image_format: str) -> Seen:
    instances = sample.get("instances")
    image = to_bgr(sample["image"].numpy().transpose(1, 2, 0), image_format)
    if instances is None:
        return Seen(sample["file_name"], image, [], np.zeros((0, 4)), [], None)
    return Seen(
        file_name=sample["file_name"],
        image=image,
        classes=instances.gt_classes.tolist(),
        boxes=instances.gt_boxes.tensor.numpy(),
        segmentations=_segmentations(instances),
        keypoints=instances.gt_keypoints.tensor.numpy() if instances.has("gt_keypoints") else None,
    )


def _segmentations(instances: Instances) -> list[Any]:
    from detectron2.structures import BitMasks

    if not instances.has("gt_masks"):
        return [None] * len(instances)
    if isinstance(instances.gt_masks, BitMasks):
        return [encode_mask(mask) for mask in instances.gt_masks.tensor.numpy().astype(bool)]
    # Cropping can leave polygons of fewer than three points.
    return [[p.tolist() for p in polygons if len(p) >= 6] or None for polygons in instances.gt_masks.polygons]


def readable_format(record: dict[str, Any]) -> str:
    """Returns "BGR", or "raw" if the image cannot be converted to BGR."""
    from maskrcnn_ext.data.images.pixels import read_pixels

    try:
        read_pixels(record, "BGR")
    except InputError:
        return "raw"
    return "BGR"


def to_bgr(image: np.ndarray, image_format: str) -> np.ndarray:
    """Converts an image (H, W, C) of any type to (H, W, 3) uint8 BGR for display.

    Values other than uint8 are stretched from their 1st and 99th percentile. Of more than three channels, the first three are shown.
    """
    if image.dtype != np.uint8:
        low, high = np.percentile(image, (1, 99)).tolist()
        image = ((image.astype(np.float32) - low) * (255 / max(high - low, 1e-9))).clip(0, 255).astype(np.uint8)
    image = image[..., :1].repeat(3, axis=2) if image.shape[2] < 3 else image[..., :3]
    return np.ascontiguousarray(image if image_format == "BGR" else image[..., ::-1])
