"""Reads the images of a mapper, resized by its first augmentation where that saves time: from a cache, or decoded at a reduced scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.data import transforms as T

from maskrcnn_ext.data.images.photos import read_reduced
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.mapping.image_cache import ImageCache
from maskrcnn_ext.errors import InputError


class ImageReader:
    """Reads the pixels of records, and keeps them in a cache if there is one.

    A cache holds an image in the sizes that the first augmentation can draw if all of them together have fewer pixels than the image,
    else as it was decoded. Both give the pixels that reading and resizing gives, bit for bit.
    """

    def __init__(self, image_format: str, cache: ImageCache | None, *, reduced: bool) -> None:
        """Stores the settings of :class:`maskrcnn_ext.SafeMapper`."""
        self.image_format, self.cache, self.reduced = image_format, cache, reduced

    def read(self, record: dict[str, Any]) -> np.ndarray:
        """Returns the decoded pixels (H, W, C).

        Raises:
            InputError: it cannot be read, or has another size than the record's annotations are for.
        """
        if self.cache is None:
            return self._decode(record)
        key = self.cache.key(record, self.image_format)
        image = self.cache.load(key)
        if image is None:
            image = self._decode(record)
            self.cache.store(key, image)
        return image

    def draw_resize(self, record: dict[str, Any], augmentation: Any) -> T.ResizeTransform | None:
        """Draws the resizing of :meth:`read_resized` from the first augmentation; None if the whole image is to be read.

        The augmentation needs only the size of the image, so it draws the same random numbers as for the pixels.
        """
        if type(augmentation) is not T.ResizeShortestEdge or "sem_seg_file_name" in record:
            return None
        if not record.keys() >= {"height", "width"}:
            return None
        size: tuple[int, int] = record["height"], record["width"]
        if not self.reduced and (self.cache is None or not _is_smaller_resized(augmentation, *size)):
            return None
        shape = np.broadcast_to(np.uint8(0), (*size, 3))
        drawn = augmentation.get_transform(shape)
        return drawn if type(drawn) is T.ResizeTransform else None

    def read_resized(self, record: dict[str, Any], resize: T.ResizeTransform) -> np.ndarray:
        """Returns the resized pixels (h, w, C), as :func:`augmentable` ones.

        Raises:
            InputError: see :meth:`read`.
        """
        details = ("resized", resize.new_h, resize.new_w, resize.interp, self.reduced)
        key = "" if self.cache is None else self.cache.key(record, self.image_format, *details)
        resized = None if self.cache is None else self.cache.load(key)
        if resized is None:
            resized = self._resize(record, resize)
            if self.cache is not None:
                self.cache.store(key, resized)
        return resized

    def _resize(self, record: dict[str, Any], resize: T.ResizeTransform) -> np.ndarray:
        small = read_reduced(record, self.image_format, (resize.new_h, resize.new_w)) if self.reduced else None
        if small is None:
            return np.asarray(resize.apply_image(augmentable(self._decode(record))))
        image, size = small
        _check_size(record, *size)
        last = T.ResizeTransform(*image.shape[:2], resize.new_h, resize.new_w, resize.interp)
        return np.asarray(last.apply_image(image))

    def _decode(self, record: dict[str, Any]) -> np.ndarray:
        image = read_pixels(record, self.image_format)
        _check_size(record, *image.shape[:2])
        return image


def augmentable(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels (H, W, C) as augmentations take them: other than uint8 with 1 or 3 channels become float32.

    Pillow, which resizes bytes, would refuse them, or take the last of four channels for transparency.
    """
    if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
        return pixels.astype(np.float32, copy=False)
    return pixels


def _check_size(record: dict[str, Any], height: int, width: int) -> None:
    expected = record.get("height", height), record.get("width", width)
    if expected != (height, width):
        raise InputError(
            f"{record['file_name']}: the image is {width} x {height}, its annotations are for {expected[1]} x "
            f"{expected[0]} (width x height); `maskrcnn-ext check-data --fix` corrects a copy"
        )


def _is_smaller_resized(augmentation: T.ResizeShortestEdge, height: int, width: int) -> bool:
    """Whether an image in all sizes that can be drawn has fewer pixels than the image itself."""
    edges = augmentation.short_edge_length
    drawn = range(edges[0], edges[1] + 1) if augmentation.is_range else edges
    if len(drawn) * min(drawn) ** 2 >= height * width:  # many sizes of a range are not summed
        return False
    sizes = (augmentation.get_output_shape(height, width, edge, augmentation.max_size) for edge in set(drawn))
    return sum(h * w for h, w in sizes) < height * width
