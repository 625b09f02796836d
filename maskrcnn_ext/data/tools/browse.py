"""What a data set looks like, as stored or as training will see it, in plain arrays that can be drawn."""

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
    """One sample.

    Attributes:
        file_name: the image's file; of a mixed one, the file of its base.
        image: (H, W, 3), uint8, BGR.
        classes: class index of every object.
        boxes: (N, 4), x0, y0, x1, y1 in pixels of `image`.
        segmentations: polygons, an RLE or None for every object.
        keypoints: (N, K, 3), x, y, visibility; None where there are none.
    """

    file_name: str
    image: np.ndarray
    classes: list[int]
    boxes: np.ndarray
    segmentations: list[Any]
    keypoints: np.ndarray | None


def browse_stored(name: str, *, num: int, seed: int) -> list[Seen]:
    """Reads random images of a data set as they are stored, each at most once, in the data set's order.

    Args:
        name: a registered data set, or a string such as ``coco:/data/train.json@/data/images``.
        num: how many; fewer where the data set has fewer.
        seed: of the choice.

    Raises:
        InputError: there is no such data set, or an image or annotation of it is bad.
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
    """Draws what the model will see: the first samples of the config's own training loader, sampler and all.

    Args:
        cfg: a LazyConfig with ``dataloader.train``; its batch size and workers are set aside.
        num: how many.
        seed: of the sampler and the augmentations where the config does not fix theirs.

    Raises:
        InputError: the config has no training loader, or what the loader says of the data.
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
    """The format that a mapper reads in, or the one that it is wrapped around."""
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
    # A cut can leave corners that enclose nothing.
    return [[p.tolist() for p in polygons if len(p) >= 6] or None for polygons in instances.gt_masks.polygons]


def readable_format(record: dict[str, Any]) -> str:
    """Returns "BGR", or "raw" for an image of another number of channels than that takes."""
    from maskrcnn_ext.data.images.pixels import read_pixels

    try:
        read_pixels(record, "BGR")
    except InputError:
        return "raw"
    return "BGR"


def to_bgr(image: np.ndarray, image_format: str) -> np.ndarray:
    """Returns (H, W, 3), uint8, of an image (H, W, C) of any type: all but the extreme values are spread, of many channels three count."""
    if image.dtype != np.uint8:
        low, high = np.percentile(image, (1, 99)).tolist()
        image = ((image.astype(np.float32) - low) * (255 / max(high - low, 1e-9))).clip(0, 255).astype(np.uint8)
    image = image[..., :1].repeat(3, axis=2) if image.shape[2] < 3 else image[..., :3]
    return np.ascontiguousarray(image if image_format == "BGR" else image[..., ::-1])
