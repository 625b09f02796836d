"""Any Albumentations pipeline in the list of Detectron2's augmentations, for images, masks, boxes, polygons and keypoints alike."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation

from maskrcnn_ext.data.mapping.augmentation.pixel_map import PixelMapTransform, moved_image
from maskrcnn_ext.errors import InputError

# They look for boxes or masks without declaring it, and crop anywhere where there are none.
_SEEKERS = (
    "AtLeastOneBBoxRandomCrop",
    "BBoxSafeRandomCrop",
    "CropNonEmptyMaskIfExists",
    "RandomSizedBBoxSafeCrop",
)
# What the model does itself, with model.pixel_mean and pixel_std.
_FOR_MODELS = ("FromFloat", "Normalize", "ToFloat", "ToTensor3D", "ToTensorV2")
_MIN_SHARE = 0.5  # of a pixel of the output that must come from the image; the rest is fill


class AlbumentationsAugmentation(Augmentation):
    """Runs Albumentations (MIT-licensed up to 2.0.8) between Detectron2's own augmentations.

    The pipeline runs once an image, on its pixels and on a map of their coordinates; all annotations then move as that map says, so that
    they agree whatever the pipeline drew. The draw comes from numpy's global generator, as that of Detectron2's augmentations does.

    Polygons follow what is affine or projective. With elastic, grid and lens distortions, set ``mapper.instance_mask_format=bitmask`` and
    keep masks as RLE. A mirrored image exchanges left and right keypoints by ``mapper.keypoint_hflip_indices``.
    """

    def __init__(self, transforms: Any, *, image_format: str = "BGR") -> None:
        """Takes the pipeline.

        Args:
            transforms: an Albumentations transform or a list of them, in a LazyConfig ``[L(A.Affine)(rotate=[-15, 15], p=0.5)]``; or what
                ``A.to_dict(pipeline)`` gives.
            image_format: the mapper's; Albumentations gets "BGR" images as RGB.

        Raises:
            InputError: Albumentations is not installed, the description is none of a pipeline, or a transform in it needs boxes or masks
                to choose its place, which Detectron2 does not show to augmentations.
        """
        super().__init__()
        self.transforms = transforms
        self.image_format = image_format
        self.pipeline = _build(transforms)

    def get_transform(self, image: np.ndarray) -> PixelMapTransform:
        """Draws, and transforms the image (H, W) or (H, W, C).

        Raises:
            InputError: a member of the pipeline refuses the image, or changes its type or channels.
        """
        seed = np.random.randint(2**31)
        # One stream for all members: `set_random_seed` would hand the same draws to each, and two flips would always agree.
        self.pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        reverse = self.image_format == "BGR" and image.ndim == 3 and image.shape[2] == 3
        given, low, high = _to_unit_range(image[..., ::-1] if reverse else image)
        try:
            done = self.pipeline(image=given, mask=_coordinates(*image.shape[:2]))
        except Exception as error:  # a hundred classes raise whatever they like
            raise InputError(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}") from error
        result = done["image"]
        if result.dtype != given.dtype or result.shape[2:] != given.shape[2:]:
            raise InputError(
                f"Albumentations made {result.shape} of {result.dtype} of {given.shape} of {given.dtype}: type and channels must stay"
            )
        if reverse:
            result = result[..., ::-1]
        if (low, high) != (0, 1):
            result = result * (high - low) + low
        return moved_image(image, np.ascontiguousarray(result, dtype=image.dtype), _sources(done["mask"]))


def _to_unit_range(image: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Scales an image that is not of bytes to 0 to 1, what Albumentations takes and clips to; returns the range that it had, too."""
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image), 0, 1
    low, high = min(float(image.min()), 0), max(float(image.max()), 1)
    return np.ascontiguousarray((image - low) / (high - low), dtype=np.float32), low, high


def _coordinates(height: int, width: int) -> np.ndarray:
    """(H, W, 3), float32: x, y and 1 for every pixel."""
    coordinates = np.ones((height, width, 3), np.float32)
    coordinates[..., 0] = np.arange(width)
    coordinates[..., 1] = np.arange(height)[:, None]
    return coordinates


def _sources(moved: np.ndarray) -> np.ndarray:
    """Reads moved coordinates: the third number is the share of the pixel that is image; fill of another value is none either."""
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
        except Exception as error:  # whatever a wrong argument raises in one of a hundred classes
            raise InputError(
                f"transforms: not what albumentations.to_dict() gives: {type(error).__name__}: {error}"
            ) from error
    members = list(transforms) if isinstance(transforms, (Sequence, ListConfig)) else [transforms]
    for member in members:
        if not isinstance(member, (albumentations.BasicTransform, albumentations.BaseCompose)):
            raise InputError(
                f"transforms: {type(member).__name__} is no Albumentations transform: write L(A.HorizontalFlip)(p=0.5) "
                "or what albumentations.to_dict() gives"
            )
    for leaf in _leaves(members):
        if type(leaf).__name__ in _FOR_MODELS:
            raise InputError(
                f"transforms: leave {type(leaf).__name__} out: the model itself takes bytes and normalises them"
            )
        if set(leaf.targets_as_params) - {"image"} or type(leaf).__name__ in _SEEKERS:
            raise InputError(
                f"transforms: {type(leaf).__name__} needs more than the image, which is all that Detectron2 shows to "
                "augmentations: leave it out"
            )
    # Coordinates are interpolated: between two pixels lies the mean of theirs.
    return albumentations.Compose(members, mask_interpolation=cv2.INTER_LINEAR)


def _leaves(members: Sequence[Any]) -> Iterator[Any]:
    for member in members:
        if hasattr(member, "transforms"):
            yield from _leaves(member.transforms)
        else:
            yield member


def _import() -> ModuleType:
    # Without it, importing the library asks a server for its newest version.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        import albumentations
    except ImportError as error:
        raise InputError(
            f'AlbumentationsAugmentation needs a library: pip install "maskrcnn_ext[albumentations]" ({error})'
        ) from error
    return albumentations
