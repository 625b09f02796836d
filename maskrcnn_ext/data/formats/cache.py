"""Caches the parsed content of large annotation files by the hash of the file: reading one again takes a third of the time.

Entries are in ``$MASKRCNN_EXT_CACHE`` (``off`` disables the cache) or ``~/.cache/maskrcnn_ext``. They contain plain values
(:mod:`marshal`), never code. An entry is read only if this user owns it, no other user may write it, and its checksum is right.
Otherwise the file is parsed.
"""

from __future__ import annotations

import hashlib
import logging
import marshal
import os
import stat
import sys
import tempfile
import time
from operator import attrgetter
from pathlib import Path
from typing import Any

from maskrcnn_ext import __version__
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord

logger = logging.getLogger(__name__)

# Bytes; smaller files are parsed in less than a second.
MIN_BYTES = 20_000_000
# Newer versions of marshal's format search for shared objects, which takes a fifth longer and finds none.
_MARSHAL_VERSION = 2
# Seconds (30 days): entries that have not been read for so long are deleted when another one is written.
_UNUSED = 30 * 24 * 3600
_DIGEST = hashlib.sha256().digest_size
_row_of = attrgetter("category", "box", "segmentation", "keypoints", "crowd", "id", "score", "points")


def cache_folder() -> Path | None:
    """Returns the folder of the entries; None if the cache is disabled, or there is no home folder."""
    chosen = os.environ.get("MASKRCNN_EXT_CACHE")
    if chosen == "off":
        return None
    try:
        return Path(chosen or "~/.cache/maskrcnn_ext").expanduser()
    except RuntimeError:  # a container's user has no home
        return None


def key_of(content: bytes, *arguments: str) -> str:
    """Returns the key of a file's content and a reader's arguments. It differs between versions of this package and of Python."""
    context = repr((__version__, sys.version_info[:2], arguments))
    return hashlib.sha256(hashlib.sha256(content).digest() + context.encode("utf-8", "surrogatepass")).hexdigest()


def load(key: str) -> tuple[DataSet, Any] | None:
    """Returns what :func:`store` has stored; None if there is no entry, or it cannot be trusted."""
    folder = cache_folder()
    if folder is None:
        return None
    path = folder / key
    try:
        with path.open("rb") as file:
            if not _is_private(os.fstat(file.fileno())):
                logger.warning("%s: not read, since others may write it: delete it", path)
                return None
            content = file.read()
        if hashlib.sha256(memoryview(content)[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        images, rest, note = marshal.loads(memoryview(content)[_DIGEST:])
        records = [
            ImageRecord(n, i, h, w, [Annotation(*row) for row in rows], labelled_classes=labelled)
            for n, i, h, w, rows, labelled in images
        ]
        os.utime(path)  # in use: not to be deleted
    except (OSError, EOFError, TypeError, ValueError):
        return None
    classes, category_ids, keypoints, skeleton = rest
    return DataSet(classes, records, category_ids, keypoints, skeleton), note


def store(key: str, data: DataSet, note: Any) -> None:
    """Stores records, which must not have ``extra``, and a note of plain values. Does nothing if the folder cannot be written."""
    folder = cache_folder()
    if folder is None:
        return
    images = [
        (i.file_name, i.image_id, i.height, i.width, [_row_of(a) for a in i.annotations], i.labelled_classes)
        for i in data.images
    ]
    content = marshal.dumps(
        (images, (data.classes, data.category_ids, data.keypoints, data.skeleton), note), _MARSHAL_VERSION
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _delete_unused(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="partial-", delete=False) as file:
            try:
                file.write(hashlib.sha256(content).digest())
                file.write(content)
                file.close()
                Path(file.name).replace(folder / key)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        logger.info("cannot store the parsed annotations in %s: %s", folder, error)


def _is_private(status: os.stat_result) -> bool:
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return own and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _delete_unused(folder: Path) -> None:
    """Deletes unused entries and partial files of killed processes; leaves all other files."""
    for path in folder.iterdir():
        is_ours = path.name.startswith("partial-") or (len(path.name) == 2 * _DIGEST and not path.suffix)
        if is_ours and time.time() - path.stat().st_mtime > _UNUSED:
            path.unlink(missing_ok=True)
