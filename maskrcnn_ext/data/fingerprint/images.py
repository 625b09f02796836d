"""Measures the images of a data set: every file's header, and the pixels of a sample."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES, image_size
from maskrcnn_ext.data.formats.records import ImageRecord
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.tools.stats import pixel_statistics, sample_records
from maskrcnn_ext.errors import InputError

_THREADS = 8
_NUM_SAMPLED = 24  # images whose pixels are read
_LARGE = 16_000_000  # pixels; of a larger image the middle is read
_WINDOW = 2048  # its side in pixels
_SEED = 0
_TIFF = (".tif", ".tiff")
_TILES = 2  # of a file
_BANDS = (*_TIFF, ".npy")  # files in which a second or fourth channel is not transparency


@dataclass(frozen=True, eq=False)
class ImageFigures:
    """Figures of the images of a data set.

    Attributes:
        sizes: (N, 2) int32, width and height of each image in pixels.
        image_format: the format to read the images in: "BGR" for 8-bit images, "raw" for other types and channels.
        channels: number of channels in that format.
        dtype: the type of the pixels, such as "uint8"; "uint16 and uint8" if images differ.
        mean: of each channel in that format, of the sample.
        std: of each channel.
        minimum: of each channel.
        maximum: of each channel.
        are_photos: whether Detectron2's reader reads the files.
        unreadable: one line for each file that is missing, broken or of another size than its record says.
        unreadable_ids: the images of these files.
    """

    sizes: np.ndarray
    image_format: str
    channels: int
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    are_photos: bool
    unreadable: tuple[str, ...] = ()
    unreadable_ids: tuple[int | str, ...] = ()

    @property
    def short(self) -> float:
        """Median of the shorter sides, in pixels."""
        return float(np.median(self.sizes.min(axis=1)))

    @property
    def long(self) -> float:
        """Median of the longer sides, in pixels."""
        return float(np.median(self.sizes.max(axis=1)))


def measure_images(records: Sequence[ImageRecord]) -> ImageFigures:
    """Measures the images of records.

    Raises:
        InputError: there are no images, or none of them can be read.
    """
    if not records:
        raise InputError("the data set has no images")
    faults = _header_faults(records)
    sound = [record for record in records if record.image_id not in faults]
    if not sound:
        are_missing = not any(os.path.exists(record.file_name) for record in records)  # noqa: PTH110, as below
        advice = "; name the folder that has them, as in coco:annotations.json@FOLDER" if are_missing else ""
        raise InputError(f"none of {plural(len(records), 'image')} can be read: {next(iter(faults.values()))}{advice}")
    sample = [_pixel_record(record) for record in _few_of_each_file(sound)]
    format, channels, dtype = _choose_format(sample_records(sample, _NUM_SAMPLED // 4, _SEED))
    statistics = pixel_statistics(sample_records(sample, _NUM_SAMPLED, _SEED), format)
    return ImageFigures(
        sizes=np.array([(record.width, record.height) for record in records], np.int32),
        image_format=format,
        channels=channels,
        dtype=dtype,
        mean=tuple(statistics.mean.tolist()),
        std=tuple(statistics.std.tolist()),
        minimum=tuple(statistics.minimum.tolist()),
        maximum=tuple(statistics.maximum.tolist()),
        are_photos=statistics.photos,
        unreadable=tuple(faults.values()),
        unreadable_ids=tuple(faults),
    )


def _few_of_each_file(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Returns the records without most tiles of a file that is decoded as a whole for each of them."""

    def is_tile(record: ImageRecord) -> bool:
        return "window" in record.extra and not record.file_name.lower().endswith(_BANDS)

    numbers = Counter(record.file_name for record in records if is_tile(record))
    kept, seen = [], Counter[str]()
    for record in records:
        step = -(-numbers[record.file_name] // _TILES) or 1
        if seen[record.file_name] % step == step // 2:
            kept.append(record)
        seen[record.file_name] += is_tile(record)
    return kept


def _header_faults(records: Sequence[ImageRecord]) -> dict[int | str, str]:
    """Returns a line for each image whose file is missing, has no readable header, or has another size than its record says."""
    with ThreadPoolExecutor(_THREADS) as pool:
        lines = pool.map(_header_fault, records)
        return {record.image_id: line for record, line in zip(records, lines, strict=True) if line}


def _header_fault(record: ImageRecord) -> str:
    if "://" in record.file_name:
        return ""
    suffix = os.path.splitext(record.file_name)[1].lower()  # noqa: PTH122, a Path for each of a million files is slow
    if record.extra or suffix not in IMAGE_SUFFIXES or suffix in _TIFF:  # their headers are of many kinds
        return "" if os.path.exists(record.file_name) else f"{record.file_name}: no such file"  # noqa: PTH110
    try:
        height, width = image_size(Path(record.file_name), "image")
    except InputError as error:
        return str(error).removeprefix("image: ")
    if (height, width) != (record.height, record.width):
        turned = (height, width) == (record.width, record.height)
        advice = (
            ", as before the rotation in its EXIF data; maskrcnn-ext check-data --fix corrects that" if turned else ""
        )
        return (
            f"{record.file_name}: {width} x {height} pixels, its record says {record.width} x {record.height}{advice}"
        )
    return ""


def _pixel_record(record: ImageRecord) -> dict[str, Any]:
    """Returns what to read of an image: the middle of a large one."""
    found = {"file_name": record.file_name, **record.extra}
    if "window" not in found and "slice" not in found and record.width * record.height > _LARGE:
        sides = [min(side, _WINDOW) for side in (record.width, record.height)]
        corner = [(side - part) // 2 for side, part in zip((record.width, record.height), sides, strict=True)]
        found["window"] = [*corner, *sides]
    return found


def _choose_format(records: Sequence[dict[str, Any]]) -> tuple[str, int, str]:
    """Returns the format to read the images in, their number of channels in it, and their type."""
    kinds: dict[tuple[int, str], str] = {}
    problem, are_photos = "", True
    for record in records:
        try:
            pixels = read_pixels(record, "raw")
        except InputError as error:
            problem = str(error)
            continue
        name, channels = str(record["file_name"]), pixels.shape[2]
        kinds.setdefault((channels, str(pixels.dtype)), name)
        photo_channels = (1, 3) if name.lower().endswith(_BANDS) else (1, 2, 3, 4)
        are_photos = are_photos and pixels.dtype == np.uint8 and channels in photo_channels
    if not kinds:
        raise InputError(f"no image could be read: {problem}")
    dtypes = sorted({dtype for _, dtype in kinds})
    dtype = " and ".join(dtypes)
    if are_photos:
        return "BGR", 3, dtype
    numbers = {channels for channels, _ in kinds}
    if numbers == {1, 3}:  # grey images among colours: as three equal channels
        return "BGR", 3, dtype
    if len(numbers) > 1:
        examples = ", ".join(f"{name} has {count}" for (count, _), name in sorted(kinds.items()))
        raise InputError(
            f"the images differ in their number of channels ({examples}): save them with the same channels"
        )
    return "raw", numbers.pop(), dtype
