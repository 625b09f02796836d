"""Finds the data to train on and to validate on in a folder or file that holds both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from maskrcnn_ext.data.formats import get_format
from maskrcnn_ext.data.formats.file_names import list_files
from maskrcnn_ext.data.formats.mask_names import IMAGE_FOLDERS
from maskrcnn_ext.data.registry.detect import described_by_files, detect
from maskrcnn_ext.data.registry.label_folders import TRAIN, VAL, cityscapes_splits, label_images, paired_label_images
from maskrcnn_ext.errors import InputError


def detect_splits(path: Path) -> tuple[str, str | None] | None:
    """Returns the strings that name the data to train on and to validate on at a path.

    Splits are those of a YOLO data file, the subsets of CVAT, the data sets of a Supervisely project, the lists in ``ImageSets`` of VOC,
    the folders of Cityscapes, files such as ``instances_train2017.json``, or folders such as ``train`` and ``valid``. The second is None if
    no split is named so; further ones, such as ``test``, are left alone.

    Returns:
        None if the path is no data set of splits, or holds several to train on.

    Example:
        >>> _ = (tmp_path / "data.yaml").write_text("{names: [cat], train: a, val: b, test: c}")
        >>> [name.removeprefix(f"yolo:{tmp_path}") for name in detect_splits(tmp_path)]
        ['/data.yaml@train', '/data.yaml@val']
    """
    try:
        return next(filter(None, map(_choose, _groups(path))), None)
    except InputError:  # a file that cannot be read
        return None


def _choose(group: list[tuple[str, str]]) -> tuple[str, str | None] | None:
    """Returns the strings to train on and to validate on of the names and strings of splits."""
    words = [(set(re.findall("[a-z]+", split.lower())), name) for split, name in group]
    train, val = ([name for found, name in words if found & wanted] for wanted in (TRAIN, VAL))
    return (train[0], val[0] if val else None) if len(train) == 1 and len(val) < 2 else None


def _groups(path: Path) -> Iterator[list[tuple[str, str]]]:
    """Yields groups of splits, each with its name and string, the likeliest group first."""
    whole = detect(path)
    if whole is not None:
        yield list(_splits_of(whole))
        return
    if not path.is_dir():
        return
    files = [(Path(name.partition(":")[2].partition("@")[0]), name) for name in described_by_files(path)]
    for place in dict.fromkeys(file.parent for file, _ in files):
        yield [(file.stem, name) for file, name in files if file.parent == place]
    yield cityscapes_splits(path)
    yield paired_label_images(path)
    folders = [folder for folder in list_files(path, "*") if folder.is_dir()]
    yield [(folder.name, name) for folder in folders if (name := detect(folder)) is not None]
    parts = dict.fromkeys(
        folder.name for name in IMAGE_FOLDERS for folder in list_files(path / name, "*") if folder.is_dir()
    )
    yield [(part, name) for part in parts if (name := label_images(path, part)) is not None]
    if len(folders) == 1:  # archives unpack into a folder
        yield from _groups(folders[0])


def _splits_of(name: str) -> Iterator[tuple[str, str]]:
    """Yields the splits of the data set that a detected string names."""
    prefix, _, places = name.partition(":")
    format = get_format(prefix)
    if format.list_splits is not None:
        key = "" if len(format.shorthand) == 1 else f"{format.split_option}:"
        for split in format.list_splits(Path(places)):
            yield split, f"{name}@{key}{split}"
    elif prefix == "voc":
        annotations, images, *options = places.split("@")
        lists = Path(annotations).parent / "ImageSets" / ("Segmentation" if options else "Main")
        outlines = [option for option in options if option.startswith("objects:")]
        for split in ("train", "val"):
            if (lists / f"{split}.txt").is_file():
                yield split, f"voc:{'@'.join([annotations, images, str(lists / f'{split}.txt'), *outlines])}"
    elif prefix == "label_image":
        lists = Path(places.partition("@")[0]).parent / "ImageSets" / "Segmentation"
        for split in ("train", "val"):
            if (lists / f"{split}.txt").is_file():
                yield split, f"{name}@list:{lists / f'{split}.txt'}"
