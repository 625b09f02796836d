"""The fingerprint of a data set, and its cache."""

from __future__ import annotations

import hashlib
import json
import logging
import marshal
import os
from dataclasses import dataclass, fields
from io import BytesIO
from typing import Any

import numpy as np

from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.data.fingerprint.images import ImageFigures, measure_images
from maskrcnn_ext.data.fingerprint.objects import ObjectFigures, measure_objects
from maskrcnn_ext.data.formats.cache import cache_folder, key_of
from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Facts about a data set that need no training.

    Attributes:
        name: as in ``dataset.names``.
        key: hash of the annotations, and of the names, sizes and times of the image files.
        objects: figures of the objects.
        images: figures of the images.
    """

    name: str
    key: str
    objects: ObjectFigures
    images: ImageFigures

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.images.sizes)


def fingerprint(name: str, data: DataSet | None = None) -> Fingerprint:
    """Measures a data set. The figures are cached by the content of the records and by the names, sizes and times of the image files.

    Args:
        name: a registered name, a string such as ``coco:/data/train.json@/data/images``, or a path whose format is detected.
        data: its records; None to read them.

    Raises:
        InputError: the data set is unknown or broken, or has no image that can be read.

    Example::

        found = fingerprint("coco:/data/train.json@/data/images")
        print(found.num_images, found.objects.total, found.objects.side(0.5))
    """
    data = load_dataset(name) if data is None else data
    key = _key(data)
    stored = _load(key)
    if stored is None:
        try:
            stored = measure_objects(data), measure_images(data.images)
        except InputError as error:
            raise InputError(f"data set {name}: {error}") from error
        _store(key, *stored)
    return Fingerprint(name, key, *stored)


def _key(data: DataSet) -> str:
    """Returns a hash of the records and of the sizes and times of their files."""
    digest = hashlib.sha256()
    digest.update(marshal.dumps((list(data.classes), list(data.keypoints)), 2))
    for record in data.images:
        rows = [(a.category, tuple(a.box), a.segmentation, a.keypoints, a.crowd) for a in record.annotations]
        digest.update(
            repr((record.image_id, record.height, record.width, record.extra, record.labelled_classes, rows)).encode(
                "utf-8", "replace"
            )
        )
    for file in dict.fromkeys(record.file_name for record in data.images):
        digest.update(f"{file} {_state(file)}\n".encode("utf-8", "surrogatepass"))
    return key_of(digest.digest(), "fingerprint")


def _state(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)  # noqa: PTH116, a Path for each of a million files is slow
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _load(key: str) -> tuple[ObjectFigures, ImageFigures] | None:
    folder = cache_folder()
    if folder is None:
        return None
    try:
        with np.load(folder / key, allow_pickle=False) as file:
            plain = json.loads(str(file["plain"]))
            objects = ObjectFigures(**_restored(file, plain, ObjectFigures))
            images = ImageFigures(**_restored(file, plain, ImageFigures))
        os.utime(folder / key)  # in use: not to be deleted
    except (OSError, KeyError, TypeError, ValueError, EOFError):
        return None
    return objects, images


def _restored(file: Any, plain: dict[str, Any], kind: type[ObjectFigures | ImageFigures]) -> dict[str, Any]:
    """Returns the fields of one kind of figures."""
    values = {}
    for field in fields(kind):
        key = f"{kind.__name__}.{field.name}"
        value = file[key] if key in file else plain[key]
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return values


def _store(key: str, *figures: ObjectFigures | ImageFigures) -> None:
    folder = cache_folder()
    if folder is None:
        return
    values = {f"{type(f).__name__}.{field.name}": getattr(f, field.name) for f in figures for field in fields(f)}
    arrays: dict[str, Any] = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in values.items() if name not in arrays}
    content = BytesIO()
    np.savez_compressed(content, plain=np.array(json.dumps(plain)), **arrays)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(folder / key, content.getvalue())
    except (OSError, InputError) as error:
        logger.info("cannot store the fingerprint in %s: %s", folder, error)
