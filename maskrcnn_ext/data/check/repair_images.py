"""The part of a repair that is about images: which stay, under which id, and of which size."""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.check.faults import Fault
from maskrcnn_ext.data.check.pixels import PixelsByImage
from maskrcnn_ext.data.check.placing import place, placing_of
from maskrcnn_ext.data.check.view import DatasetView, ImageView

# Kinds of fault with which an image cannot stay.
_LOST = ("image-missing", "image-corrupt", "image-broken", "leak-exact")


def fill_sizes(data: dict[str, Any], view: DatasetView, pixels: PixelsByImage, log: list[str]) -> None:
    """Gives images without a size that of their file."""
    for image in view.images:
        read = pixels.get(image.key)
        if read is not None and not read.problem and (image.height is None or image.width is None):
            data["images"][image.index].update(height=read.height, width=read.width)
            log.append(f"{_told(image)}: is {read.width} x {read.height} (width, height) now, as its file")


def drop_images(data: dict[str, Any], view: DatasetView, faults: list[Fault], log: list[str]) -> None:
    """Drops images that cannot stay, with their objects; `faults` are of `view`'s file, by index."""
    lost = {image.index: "image-sizeless" for image in view.images if image.height is None or image.width is None}
    lost |= {fault.image.index: fault.kind for fault in faults if fault.image is not None and fault.kind in _LOST}
    files: dict[Any, set[Any]] = {}
    for image in view.images:
        files.setdefault(image.id, set()).add(image.key)
    kept: dict[Any, ImageView] = {}
    gone = set()
    for image in view.images:
        if len(files[image.id]) > 1:
            gone.add(image.id)
            log.append(f"{_told(image)}: left out with its objects, another image has its id")
        elif image.index in lost:
            gone.add(image.id)
            log.append(f"{_told(image)}: left out with its objects ({lost[image.index]})")
        elif kept.setdefault(image.id, image) is not image:
            log.append(f"{_told(image)}: left out, it is there twice")
    data["images"] = [data["images"][image.index] for image in kept.values()]
    orphans = {found.index for found in view.objects if found.image is not None and found.image.id in gone}
    data["annotations"] = [entry for index, entry in enumerate(data["annotations"]) if index not in orphans]


def merge_files(data: dict[str, Any], view: DatasetView, log: list[str]) -> None:
    """Leaves one record a file, with the objects of all."""
    first: dict[Any, Any] = {}
    moved: dict[Any, Any] = {}
    for image in view.images:
        if first.setdefault(image.key, image.id) != image.id:
            moved[image.id] = first[image.key]
            log.append(f"{_told(image)}: merged into image {moved[image.id]!r}")
    data["images"] = [data["images"][image.index] for image in view.images if image.id not in moved]
    for found in view.objects:
        if found.image is not None and found.image.id in moved:
            data["annotations"][found.index]["image_id"] = moved[found.image.id]


def place_objects(data: dict[str, Any], view: DatasetView, pixels: PixelsByImage, log: list[str]) -> None:
    """Gives images the size that their file has, and moves their objects to where they belong."""
    for image in view.images:
        read = pixels.get(image.key)
        placing = None if read is None else placing_of(image, read, view.objects_of(image))
        if read is None or placing is None:
            continue
        data["images"][image.index].update(height=read.height, width=read.width)
        for found in view.objects_of(image):
            place(data["annotations"][found.index], found, placing)
        log.append(
            f"{_told(image)}: {image.width} x {image.height} became {read.width} x {read.height} (width, height), "
            f"its objects {placing.told}"
        )


def _told(image: ImageView) -> str:
    return f"image {image.id!r} ({image.file_name})"
