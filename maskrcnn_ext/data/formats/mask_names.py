"""Names of images and of their masks that differ in a word: ``image_000`` and ``mask_000``, ``train_images`` and ``train_masks``."""

from __future__ import annotations

import re

IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("labels", "masks", "annotations", "label", "mask", "gt")
_IMAGE_WORDS = {*IMAGE_FOLDERS, "data", "input", "inputs", "photo", "photos", "raw", "rawimages"}
_MASK_WORDS = {
    *MASK_FOLDERS,
    *("annotation", "ground", "truth", "groundtruth", "seg", "segmentation", "segmentations", "target", "targets"),
}


def names_masks(name: str) -> bool:
    """Returns whether a name has a word for masks.

    Example:
        >>> names_masks("Train_Masks"), names_masks("PedMasks"), names_masks("train_images")
        (True, True, False)
    """
    return bool(_MASK_WORDS & {*_words(name)})


def names_images(name: str) -> bool:
    """Returns whether a name has a word for images.

    Example:
        >>> names_images("PNGImages"), names_images("other")
        (True, False)
    """
    return bool(_IMAGE_WORDS & {*_words(name)})


def without_kind(name: str) -> str:
    """Returns the words and numbers of a name, in lower case, but those for images and masks.

    Example:
        >>> without_kind("train_images"), without_kind("Mask012"), without_kind("012")
        ('train', '012', '012')
    """
    return " ".join(word for word in _words(name) if word not in _IMAGE_WORDS | _MASK_WORDS)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]
