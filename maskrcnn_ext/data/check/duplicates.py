"""Checks for images that occur twice: within a dataset, and in the dataset that it is tested on.

Near duplicates are found even if the copy was saved again, scaled, mirrored, turned or brightened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from maskrcnn_ext.data.check.faults import Fault
from maskrcnn_ext.data.check.images import Pixels, PixelsByImage
from maskrcnn_ext.data.check.view import DatasetView, ImageView

# Correlation of near duplicates, in the best of the eight ways to turn and mirror an image. Measured on seven datasets of photographs,
# microscopy, CT and MR: 99 % of the copies that were scaled, brightened, made noisy or saved as JPEG reach 0.94. Different images reach
# at most 0.7, neighbouring slices of a volume 0.95.
_MIN_CORRELATION = 0.93
_MIN_CONTRAST = 2.0  # standard deviation in grey levels; a blank image is below it, and all blank images are alike
_BATCH = 512  # thumbnails compared at a time, which bounds the memory

_TURNS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda thumbnails: thumbnails,
    lambda thumbnails: thumbnails[:, :, ::-1],
    lambda thumbnails: thumbnails[:, ::-1],
    lambda thumbnails: thumbnails[:, ::-1, ::-1],
    lambda thumbnails: thumbnails.swapaxes(1, 2),
    lambda thumbnails: thumbnails.swapaxes(1, 2)[:, :, ::-1],
    lambda thumbnails: thumbnails.swapaxes(1, 2)[:, ::-1],
    lambda thumbnails: thumbnails.swapaxes(1, 2)[:, ::-1, ::-1],
)


def check_duplicate_images(
    view: DatasetView, pixels: PixelsByImage, against: DatasetView | None, other_pixels: PixelsByImage
) -> Iterator[Fault]:
    """Finds exact and near copies of images.

    Args:
        view: the dataset.
        pixels: its images, as :func:`~maskrcnn_ext.data.check.images.read_images` returns them.
        against: another dataset, such as the validation split, or None.
        other_pixels: the images of the other dataset.
    """
    others = [] if against is None else _readable_images(against, other_pixels)
    own = _readable_images(view, pixels)
    found = others + own
    if not own:
        return
    first: dict[bytes, int] = {}
    for index, (image, read) in enumerate(found):
        earlier = first.setdefault(read.digest, index)
        if index >= len(others) and earlier != index:
            leak = earlier < len(others)
            kind = "leak-exact" if leak else "image-duplicate"
            yield _duplicate_fault(kind, image, found[earlier][0], against if leak else None, "")
    thumbnails = np.stack([read.thumbnail for _, read in found if read.thumbnail is not None])
    for later, earlier, turned in find_near_pairs(thumbnails, len(others)):
        if found[later][1].digest != found[earlier][1].digest:
            leak = earlier < len(others)
            kind = "leak-near" if leak else "image-near-duplicate"
            how = ", turned or mirrored" if turned else ""
            yield _duplicate_fault(kind, found[later][0], found[earlier][0], against if leak else None, how)


def _readable_images(view: DatasetView, pixels: PixelsByImage) -> list[tuple[ImageView, Pixels]]:
    """Returns the images that could be read, each once."""
    found: dict[Any, tuple[ImageView, Pixels]] = {}
    for image in view.images:
        read = pixels.get(image.key)
        if read is not None and not read.problem:
            found.setdefault(image.key, (image, read))
    return list(found.values())


def _duplicate_fault(kind: str, image: ImageView, other: ImageView, against: DatasetView | None, how: str) -> Fault:
    where = "" if against is None else f" of {against.name}"
    return Fault(kind, f"image {other.label}{where}{how}", image, None, other)


def find_near_pairs(thumbnails: np.ndarray, num_others: int) -> Iterator[tuple[int, int, bool]]:
    """Yields pairs of images that are almost the same.

    Each image is paired at most twice: with the most similar image of the other dataset and with the most similar earlier image of its
    own. All pairs would be too many: a video has as many as the square of its frames.

    Args:
        thumbnails: (N, 16, 16) grey levels.
        num_others: the number of images at the start that belong to the other dataset. They are not compared with each other.

    Yields:
        The index of the later image, the index of the earlier image, and whether one is the other turned or mirrored.
    """
    upright = _gradient_vectors(thumbnails)
    for start in range(num_others, len(thumbnails), _BATCH):
        stop = min(start + _BATCH, len(thumbnails))
        best = np.full((stop - start, stop), -1.0, np.float32)
        turned = np.zeros(best.shape, bool)
        for number, turn in enumerate(_TURNS):
            correlation = _gradient_vectors(turn(thumbnails[start:stop])) @ upright[:stop].T
            turned[correlation > best] = number > 0
            np.maximum(best, correlation, out=best)
        for row, later in enumerate(range(start, stop)):
            for low, high in ((0, num_others), (num_others, later)):
                earlier = low + int(best[row, low:high].argmax()) if low < high else 0
                if low < high and best[row, earlier] > _MIN_CORRELATION:
                    yield later, earlier, bool(turned[row, earlier])


def correlate_neighbours(thumbnails: np.ndarray) -> np.ndarray:
    """Returns the correlation (N - 1) of each image with the next one, not turned or mirrored.

    Different images reach 0.3, neighbouring slices of a volume or frames of a video 0.65 and more.

    Args:
        thumbnails: (N, 16, 16) grey levels.
    """
    vectors = _gradient_vectors(thumbnails)
    correlation: np.ndarray = (vectors[1:] * vectors[:-1]).sum(axis=1)
    return correlation


def _gradient_vectors(thumbnails: np.ndarray) -> np.ndarray:
    """Returns the differences of neighbouring pixels as unit vectors (N, 480); zeros for blank images.

    Grey levels themselves would not do: different images of one scene or one microscope share light and shade.
    """
    thumbnails = thumbnails.astype(np.float32)
    down, right = np.diff(thumbnails, axis=1), np.diff(thumbnails, axis=2)
    vectors = np.concatenate([down.reshape(len(thumbnails), -1), right.reshape(len(thumbnails), -1)], axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    vectors[thumbnails.std(axis=(1, 2)) < _MIN_CONTRAST] = 0
    return vectors
