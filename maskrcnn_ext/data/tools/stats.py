"""Computes mean, standard deviation and range of a data set's pixels for each channel of the model's input."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.errors import InputError

# The standard deviation (mean of the channels) that the configs' ImageNet weights expect: they were trained without dividing by it.
IMAGENET_STD = 57.7
_OWN_KEYS = {"window", "slice", "level"}  # keys of a record that only SafeMapper reads


@dataclass
class PixelStatistics:
    """Statistics of the pixels of several images.

    Attributes:
        mean: (C,) float64, of all pixels.
        std: (C,) float64, population standard deviation of all pixels.
        minimum: (C,) float64.
        maximum: (C,) float64.
        dtypes: number of images by data type.
        heights: smallest and largest.
        widths: smallest and largest.
        num_images: number of images that were read.
        photos: whether Detectron2's mapper can read all files, apart from data type and channels.
        bad: error messages of the images that could not be read.
    """

    mean: np.ndarray
    std: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    dtypes: dict[str, int]
    heights: tuple[int, int]
    widths: tuple[int, int]
    num_images: int
    photos: bool = True
    bad: list[str] = field(default_factory=list)


def sample_records(records: Sequence[dict[str, Any]], limit: int, seed: int) -> list[dict[str, Any]]:
    """Returns ``limit`` random records (0: all) in the order of the data set.

    Example:
        >>> [record["image_id"] for record in sample_records([{"image_id": 1}, {"image_id": 2}], limit=0, seed=0)]
        [1, 2]
    """
    if not 0 < limit < len(records):
        return list(records)
    chosen = sorted(random.Random(seed).sample(range(len(records)), limit))
    return [records[index] for index in chosen]


def pixel_statistics(records: Iterable[dict[str, Any]], image_format: str) -> PixelStatistics:
    """Computes statistics of images, one at a time (Chan, Golub and LeVeque 1979, equation 2.1).

    Args:
        records: Detectron2's records.
        image_format: as for :func:`maskrcnn_ext.data.images.pixels.read_pixels`; determines the order of the channels.

    Raises:
        InputError: the number of channels differs between images, or no image can be read.
    """
    count, first = 0, ""
    mean = squares = minimum = maximum = np.zeros(0)
    dtypes: dict[str, int] = {}
    heights, widths, bad = [], [], []
    photos = True
    for record in records:
        try:
            image = read_pixels(record, image_format)
        except InputError as error:
            bad.append(str(error))
            continue
        height, width, channels = image.shape
        values = image.reshape(-1, channels)
        own_mean, own_squares, low, high = np.array([_moments(values[:, c]) for c in range(channels)]).T
        if not count:
            first, mean, squares, minimum, maximum = str(record["file_name"]), own_mean, own_squares, low, high
        elif channels != len(mean):
            raise InputError(f"{record['file_name']}: has {channels} channels, but {first} has {len(mean)}")
        else:
            delta, total = own_mean - mean, count + len(values)
            mean = mean + delta * (len(values) / total)
            squares = squares + own_squares + delta**2 * (count * len(values) / total)
            minimum, maximum = np.minimum(minimum, low), np.maximum(maximum, high)
        count += len(values)
        heights.append(height)
        widths.append(width)
        photos &= not _OWN_KEYS & record.keys() and PurePath(record["file_name"]).suffix.lower() in IMAGE_SUFFIXES
        dtypes[str(image.dtype)] = dtypes.get(str(image.dtype), 0) + 1
    if not count:
        raise InputError(f"no image could be read: {bad[0]}" if bad else "no images")
    extremes = (min(heights), max(heights)), (min(widths), max(widths))
    return PixelStatistics(
        mean, np.sqrt(squares / count), minimum, maximum, dtypes, *extremes, len(heights), photos, bad
    )


def _moments(values: np.ndarray) -> tuple[float, float, float, float]:
    """Returns mean, sum of the squared differences from it, minimum and maximum of values (N,)."""
    if values.dtype in (np.uint8, np.uint16):  # they repeat, and are faster counted than added
        numbers = np.bincount(values)
        distinct = np.flatnonzero(numbers)
        numbers = numbers[distinct]
        mean = float(numbers @ distinct) / len(values)
        return mean, float(numbers @ (distinct - mean) ** 2), float(distinct[0]), float(distinct[-1])
    squares = float(values.var(dtype=np.float64)) * len(values)
    return float(values.mean(dtype=np.float64)), squares, float(values.min()), float(values.max())


def overrides(statistics: PixelStatistics, image_format: str, *, pretrained: bool) -> str:
    """Returns the overrides that adapt a config of the package to the images, in one line.

    Args:
        statistics: of the training images.
        image_format: that they were read in.
        pretrained: whether the configs' ImageNet weights are used, which expect a standard deviation of :data:`IMAGENET_STD`, not 1.
    """
    std = statistics.std / (IMAGENET_STD if pretrained else 1)
    std = np.where(std > 0, std, 1)  # a constant channel
    parts = [f"model.pixel_mean={_bracketed(statistics.mean)}", f"model.pixel_std={_bracketed(std)}"]
    channels = len(statistics.mean)
    if image_format != "BGR" or set(statistics.dtypes) != {"uint8"} or not statistics.photos:
        parts.append("dataloader.train.mapper._target_=maskrcnn_ext.SafeMapper")
        parts.append("dataloader.test.mapper._target_=maskrcnn_ext.SafeMapper")
    if image_format != "BGR":
        parts.append(f"dataloader.train.mapper.image_format={image_format}")
    if channels < 3 or image_format == "RGB":  # for the training's pictures
        parts.append(f"model.input_format={'RGB' if image_format == 'RGB' else 'L'}")
    if channels != 3:
        parts.append("model.backbone.bottom_up.stem._target_=maskrcnn_ext.InflatedStem")
        parts.append(f"model.backbone.bottom_up.stem.in_channels={channels}")
    if channels < 3:
        seen = [min(channel, channels - 1) for channel in range(3)]
        parts.append(f"model.backbone.bottom_up.stem.pretrained_channels=[{','.join(map(str, seen))}]")
    return " ".join(parts)


def _bracketed(values: np.ndarray) -> str:
    return "[" + ",".join(f"{value:.6g}" for value in values) + "]"
