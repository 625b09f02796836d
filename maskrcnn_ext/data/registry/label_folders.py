"""Detects label images: folders or files of masks that belong to images by their names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from maskrcnn_ext.data.formats.file_names import list_files
from maskrcnn_ext.data.formats.image_files import IMAGE_SUFFIXES, open_image
from maskrcnn_ext.data.formats.label_classes import CLASSES_FILE, CLASSES_TABLE, are_classes, numbers_in
from maskrcnn_ext.data.formats.label_numbers import are_two_valued
from maskrcnn_ext.data.formats.label_objects import WHITES
from maskrcnn_ext.data.formats.mask_names import IMAGE_FOLDERS, MASK_FOLDERS, names_images, names_masks, without_kind
from maskrcnn_ext.data.formats.object_masks import are_object_masks
from maskrcnn_ext.data.formats.text_files import read_text

# Words in the names of splits.
TRAIN = {"train", "training"}
VAL = {"val", "valid", "validation", "dev"}
TEST = {"test", "testing"}
_MASK_SUFFIXES = ("_mask", "_masks", "_cp_masks", "_label", "_labels", "_seg", "_gt")


def label_images(folder: Path, part: str = "") -> str | None:
    """Returns the string of the label images in ``labels`` or ``masks``, whose images are in ``images``, or such names; None without any.

    Args:
        folder: that has these folders.
        part: a folder in each of them, such as "train".
    """
    pairs = [(folder / name / part, folder / other / part) for name in IMAGE_FOLDERS for other in MASK_FOLDERS]
    found = (label_images_in(labels, images) for images, labels in pairs if images.is_dir() and labels.is_dir())
    return next(filter(None, found), None)


def paired_label_images(folder: Path) -> list[tuple[str, str]]:
    """Returns the pairs of folders such as ``train_images`` or ``train`` and ``train_masks``: their other words, and the string of each.

    Without any, the only folder of masks of a split, or of no split, and the only one named for its images, such as ``PedMasks`` and
    ``PNGImages``, are a pair if the names of their files are.
    """
    places = [place for place in list_files(folder, "*") if place.is_dir()]
    images, masks = ([place for place in places if names_masks(place.name) is is_mask] for is_mask in (False, True))
    named = [place for place in images if names_images(place.name)]
    filled = [place for place in masks if _stems(place)]
    pairs = _pair(images, masks, without_kind) or [
        (split, of, labels) for split, of, labels in _pair(named, filled, _split) if _stems(of) & _stems(labels)
    ]
    return [(rest, name) for rest, of, labels in pairs if (name := label_images_in(labels, of)) is not None]


def _pair(images: Sequence[Path], masks: Sequence[Path], key_of: Callable[[str], str]) -> list[tuple[str, Path, Path]]:
    """Returns the keys of names that one folder of images and one of masks have, and these folders."""
    by_key: dict[str, tuple[list[Path], list[Path]]] = {}
    for kind, places in enumerate((images, masks)):
        for place in places:
            by_key.setdefault(key_of(place.name), ([], []))[kind].append(place)
    return [(key, of[0], labels[0]) for key, (of, labels) in by_key.items() if len(of) == len(labels) == 1]


def _split(name: str) -> str:
    """Returns the word for a split in the name of a folder; "" without one."""
    return next((word for word in without_kind(name).split() if word in TRAIN | VAL | TEST), "")


def _stems(folder: Path) -> set[str]:
    """Returns the names of the images or masks in a folder, without the words for images and masks."""
    return {without_kind(file.stem) for file in list_files(folder, "*") if file.suffix.lower() in IMAGE_SUFFIXES}


def label_images_in(labels: Path, images: Path) -> str | None:
    """Returns the string of label images that have the name of their image, or that and a suffix such as "_mask"; None without any.

    In folders of their own, their names may also differ in the word for images and masks; see :mod:`maskrcnn_ext.data.formats.mask_names`.
    """
    files = [file for file in list_files(labels, "*") if file.suffix.lower() in IMAGE_SUFFIXES]
    stems = {stem for file in list_files(images, "*") for stem in (file.stem, file.stem.removesuffix("_img"))}
    for suffix in _MASK_SUFFIXES if labels == images else ("", *_MASK_SUFFIXES):
        found = [
            file for file in files if file.stem.endswith(suffix) and file.stem[: len(file.stem) - len(suffix)] in stems
        ]
        if found:
            option = f"@suffix:{suffix}" if suffix else ""
            return f"label_image:{labels}@{images}{option}{_meaning(labels, found)}"
    if labels == images:
        return None
    if are_object_masks(labels, images):
        return f"object_masks:{labels}@{images}"
    rests = {without_kind(stem) for stem in stems}
    found = [file for file in files if without_kind(file.stem) in rests]
    return f"label_image:{labels}@{images}{_meaning(labels, found)}" if files else None


def _meaning(labels: Path, files: Sequence[Path]) -> str:
    """Returns the options that say what the numbers of label images mean if they do not number objects; "" if they do."""
    if are_two_valued(files):
        return "@instances:component"
    if (labels.parent / CLASSES_FILE).is_file() or (labels / CLASSES_TABLE).is_file() or not are_classes(files):
        return ""
    numbers = numbers_in(files, void=(), faults=[])  # the reader reports the faults
    white = max(numbers) if max(numbers) in WHITES and len(numbers) > 1 else 0
    names = {str(number): name for number, name in numbers.items() if number != white}
    return names_option("categories", names) + (f"@void:{white}" if white else "")


def cityscapes_splits(folder: Path) -> list[tuple[str, str]]:
    """Returns the splits of a folder that has Cityscapes' ``leftImg8bit`` and ``gtFine`` or ``gtCoarse``, each with its string."""
    photographs = folder / "leftImg8bit"
    labels = next((place for name in ("gtFine", "gtCoarse") if (place := folder / name).is_dir()), None)
    found = [place for place in list_files(labels, "*") if list_files(place, "*/*_instanceIds.png")] if labels else []
    return [
        (place.name, f"cityscapes:{place}@{photographs / place.name}")
        for place in found
        if (photographs / place.name).is_dir()
    ]


def voc_label_images(folder: Path) -> str | None:
    """Returns the string of VOC's label images without XML, as CVAT and labelme export them; None without any."""
    images = folder / "JPEGImages"
    objects, classes = (
        next((place for name in (kind, f"{kind}PNG") if list_files(place := folder / name, "*.png")), None)
        for kind in ("SegmentationObject", "SegmentationClass")
    )
    labels = objects or classes
    if labels is None or not images.is_dir():
        return None
    in_colour = open_image(list_files(labels, "*.png")[0]).mode in ("RGB", "RGBA")
    void = "@void:12640480" if in_colour else "@void:255"  # (224, 224, 192) of VOC's palette
    names = names_option("categories", _classes_of_voc(folder, in_colour)) if classes else ""
    of_classes = f"@class_images:{classes}{names}" + ("" if objects else "@instances:component") if classes else ""
    return f"label_image:{labels}@{images}{of_classes}{void}"


def _classes_of_voc(folder: Path, in_colour: bool) -> dict[str, str]:
    """Returns the class names by number in CVAT's ``labelmap.txt`` or labelme's ``class_names.txt``; none without these files."""
    names: dict[str, str] = {}
    for file in (folder / "labelmap.txt", folder / "class_names.txt"):
        lines = [line.strip() for line in read_text(file).splitlines()] if file.is_file() else []
        for number, line in enumerate(line for line in lines if line and not line.startswith("#")):
            name, _, rest = line.partition(":")
            colour = [int(value) for value in rest.partition(":")[0].split(",") if value.strip().isdecimal()]
            if in_colour and len(colour) == 3:
                number = colour[0] + 256 * colour[1] + 65536 * colour[2]
            if number:
                names[str(number)] = name
    return names


def names_option(option: str, names: dict[str, str]) -> str:
    """Returns the option that names the classes of numbers; "" without names or if a string cannot hold them."""
    text = json.dumps(names, separators=(",", ":"), ensure_ascii=False)
    return f"@{option}:{text}" if names and "@" not in text else ""
