"""Runs an Albumentations pipeline as one of Detectron2's augmentations, for images, masks, boxes, polygons and keypoints."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.data.mapping.augmentation.pixel_map import PixelMapTransform, transform_from_map
from maskrcnn_ext.errors import InputError

# These need boxes or masks but do not declare it; without them they crop anywhere.
_SEEKERS = (
    "AtLeastOneBBoxRandomCrop",
    "BBoxSafeRandomCrop",
    "CropNonEmptyMaskIfExists",
    "RandomSizedBBoxSafeCrop",
)
# The model does these itself, with model.pixel_mean and pixel_std.
_FOR_MODELS = ("FromFloat", "Normalize", "ToFloat", "ToTensor3D", "ToTensorV2")
_MIN_SHARE = 0.5  # an output pixel with a smaller share of image content counts as fill


class AlbumentationsAugmentation(Augmentation):
    """Runs Albumentations (MIT-licensed up to 2.0.8) among Detectron2's augmentations.

    The pipeline runs once per image, on the pixels and on a map of their coordinates. All annotations are transformed by that map, so
    they agree with the pixels for every pipeline. Random numbers come from numpy's global generator, as in Detectron2's augmentations.

    Polygons support affine and projective transforms. For elastic, grid and lens distortions, set
    ``mapper.instance_mask_format=bitmask`` and keep masks as RLE. In a flipped image, left and right keypoints are exchanged by
    ``mapper.keypoint_hflip_indices``.

    Example:
        In a LazyConfig::

            import albumentations as A
            dataloader.train.mapper.augmentations.append(L(AlbumentationsAugmentation)(transforms=[L(A.Affine)(rotate=[-15, 15], p=0.5)]))
    """

    def __init__(self, transforms: Any, *, image_format: str = "BGR") -> None:
        """Builds the pipeline.

        Args:
            transforms: an Albumentations transform, a list of transforms, or the result of ``A.to_dict(pipeline)``.
            image_format: the mapper's; "BGR" images are passed to Albumentations as RGB.

        Raises:
            InputError: Albumentations is not installed, `transforms` is not a pipeline, or a transform needs boxes or masks to choose its
                region, which Detectron2 does not pass to augmentations.
        """
        super().__init__()
        self.transforms = transforms
        self.image_format = image_format
        self.pipeline = _build(transforms)

    def get_transform(self, image: np.ndarray) -> PixelMapTransform:
        """Runs the pipeline on an image (H, W) or (H, W, C), and returns its transform.

        Raises:
            InputError: a transform raises, or changes the data type or the number of channels.
        """
        seed = np.random.randint(2**31)
        # All transforms share one generator: with `set_random_seed` each would get the same numbers, and two flips would always agree.
        self.pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        reverse = self.image_format == "BGR" and image.ndim == 3 and image.shape[2] == 3
        given, low, high = _to_unit_range(image[..., ::-1] if reverse else image)
        try:
            done = self.pipeline(image=given, mask=_coordinates(*image.shape[:2]))
        except Exception as error:  # the many transforms have no common base class of errors
            raise InputError(f"{type(error).__name__}: {first_line(error)}") from error
        result = done["image"]
        if result.dtype != given.dtype or result.shape[2:] != given.shape[2:]:
            raise InputError(
                f"Albumentations turned {given.shape} of {given.dtype} into {result.shape} of {result.dtype}: type and channels must stay"
            )
        if reverse:
            result = result[..., ::-1]
        if (low, high) != (0, 1):
            result = result * (high - low) + low
        return transform_from_map(image, np.ascontiguousarray(result, dtype=image.dtype), _sources(done["mask"]))


def _to_unit_range(image: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Scales an image other than uint8 to the range 0 to 1 that Albumentations clips to; returns the image and its former range."""
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image), 0, 1
    low, high = min(float(image.min()), 0), max(float(image.max()), 1)
    return np.ascontiguousarray((image - low) / (high - low), dtype=np.float32), low, high


def _coordinates(height: int, width: int) -> np.ndarray:
    """Returns (H, W, 3) float32: x, y and 1 for every pixel."""
    coordinates = np.ones((height, width, 3), np.float32)
    coordinates[..., 0] = np.arange(width)
    coordinates[..., 1] = np.arange(height)[:, None]
    return coordinates


def _sources(moved: np.ndarray) -> np.ndarray:
    """Returns the source (x, y) of every pixel of a transformed coordinate map, NaN for fill.

    The third channel is the share of the pixel that comes from the image. A share above 1 comes from a fill value.
    """
    share = moved[..., 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        sources: np.ndarray = np.where((share >= _MIN_SHARE) & (share < 1.01), moved[..., :2] / share, np.nan)
    return sources


def _build(transforms: Any) -> Any:
    albumentations = _import()
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if isinstance(transforms, DictConfig):
        transforms = OmegaConf.to_container(transforms, resolve=True)
    if isinstance(transforms, Mapping):
        try:
            transforms = albumentations.from_dict(dict(transforms))
        except Exception as error:  # the many transforms have no common base class of errors
            raise InputError(
                f"transforms: not a result of albumentations.to_dict(): {type(error).__name__}: {error}"
            ) from error
    members = list(transforms) if isinstance(transforms, (Sequence, ListConfig)) else [transforms]
    for member in members:
        if not isinstance(member, (albumentations.BasicTransform, albumentations.BaseCompose)):
            raise InputError(
                f"transforms: {type(member).__name__} is not an Albumentations transform: write L(A.HorizontalFlip)(p=0.5) "
                "or pass the result of albumentations.to_dict()"
            )
    for leaf in _leaves(members):
        if type(leaf).__name__ in _FOR_MODELS:
            raise InputError(
                f"transforms: leave {type(leaf).__name__} out: the model takes 8-bit images and normalises them itself"
            )
        if set(leaf.targets_as_params) - {"image"} or type(leaf).__name__ in _SEEKERS:
            raise InputError(
                f"transforms: {type(leaf).__name__} needs more than the image, but Detectron2 passes nothing else to "
                "augmentations: leave it out"
            )
    # Coordinates must be interpolated: halfway between two pixels is the mean of their coordinates.
    return albumentations.Compose(members, mask_interpolation=cv2.INTER_LINEAR)


def _leaves(members: Sequence[Any]) -> Iterator[Any]:
    for member in members:
        if hasattr(member, "transforms"):
            yield from _leaves(member.transforms)
        else:
            yield member


def _import() -> Any:
    # Otherwise importing the library asks a server for its newest version.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return require("albumentations", extra="albumentations", purpose="AlbumentationsAugmentation")
