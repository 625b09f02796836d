"""Keeps decoded or resized images for the next epochs, in memory or on the disk, shared by all loader processes of a machine."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import psutil
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from maskrcnn_ext import __version__
from maskrcnn_ext.common.text import or_list
from maskrcnn_ext.data.formats.cache import cache_folder
from maskrcnn_ext.errors import InputError

# A child of Detectron2's logger, so that these messages reach the log file of every run.
logger = logging.getLogger(f"detectron2.{__name__}")

KINDS = ("ram", "disk")
_MEMORY = Path("/dev/shm")
_PREFIX = "maskrcnn_ext_images"
# The counter of the bytes that are held is a file that grows by one byte for each of these: appending needs no lock.
_COUNTED = 1 << 16
_COUNTER, _FULL = "counter", "full"
# Files that are being written, and the age in seconds from which their process must have been killed.
_PARTIAL, _PARTIAL_AGE = "partial-", 3600
# Fields of a record that choose pixels of its file; its size is that of the annotations, which the mapper checks.
_FIELDS = ("window", "slice", "axis", "level", "height", "width")


class ImageCache:
    """Arrays by key, each in a file. Nothing is evicted: every image is read once an epoch, so that the oldest is as useful as any.

    Example::

        cache = ImageCache("disk", limit_gb=20)
        pixels = cache.load(cache.key(record, "BGR"))
    """

    def __init__(self, kind: str, limit_gb: float | None = None) -> None:
        """Opens the cache.

        Args:
            kind: "ram" for files in /dev/shm, which the processes of a run share and which are removed at its end; "disk" for files in the
                folder ``images`` of ``$MASKRCNN_EXT_CACHE`` or ``~/.cache/maskrcnn_ext``, which later runs read too.
            limit_gb: gigabytes to hold at most, of all processes together; None for half of the free space.

        Raises:
            InputError: the kind is unknown or not available here, or the limit is not positive.
        """
        if kind not in KINDS:
            raise InputError(f"cache={kind}: expected null, {or_list(list(KINDS))}")
        if limit_gb is not None and not (isinstance(limit_gb, int | float) and limit_gb > 0):
            raise InputError(f"cache_gb={limit_gb}: expected a number above 0, or null for half of the free space")
        self.folder = _memory_folder() if kind == "ram" else _disk_folder()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = float(shutil.disk_usage(self.folder).free)
            if comm.get_local_rank() == 0:
                (self.folder / _FULL).unlink(missing_ok=True)  # an earlier run's report
                _remove_old_partials(self.folder)
        except OSError as error:
            raise InputError(f"cache={kind}: {self.folder} cannot be written ({error.strerror})") from error
        if kind == "ram":
            free = min(free, psutil.virtual_memory().available)
            if comm.get_local_rank() == 0:
                atexit.register(_remove, self.folder, os.getpid())
        held = self.held_bytes()
        self.limit = limit_gb * 1e9 if limit_gb is not None else held + free / 2
        logger.info(
            "Image cache: %s holds %.1f GB, at most %.1f GB (%.1f GB are free)",
            *(self.folder, held / 1e9, self.limit / 1e9, free / 1e9),
        )

    def key(self, record: dict[str, Any], image_format: str, *details: Any) -> str:
        """Returns the key of a record's pixels: its file with size and times of change, and all settings that the pixels depend on.

        Args:
            record: of Detectron2.
            image_format: of the mapper.
            details: the processing of the pixels before they are stored.
        """
        path = Path(PathManager.get_local_path(str(record["file_name"]))).resolve()
        try:
            status = path.stat()
        except OSError:  # the reader raises the error that says so
            return ""
        fields = [(name, record[name]) for name in _FIELDS if name in record]
        parts = (
            str(path),
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,  # copying tools set the time of modification to that of their source
            fields,
            image_format,
            details,
            __version__,
            PIL.__version__,
        )
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def load(self, key: str) -> np.ndarray | None:
        """Returns the array of a key; None if it is not held."""
        try:
            kept: np.ndarray = np.load(self.folder / f"{key}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return kept

    def store(self, key: str, array: np.ndarray) -> None:
        """Keeps an array, unless the cache is full or cannot be written."""
        if not key:
            return
        if self.held_bytes() + array.nbytes > self.limit:
            self._report_full()
            return
        partial = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=_PARTIAL, delete=False) as file:
                partial = Path(file.name)
                np.save(file, np.ascontiguousarray(array))
            partial.replace(self.folder / f"{key}.npy")
            with (self.folder / _COUNTER).open("ab") as counter:
                counter.write(bytes(-(-array.nbytes // _COUNTED)))
        except OSError:  # no space: as if it was full
            if partial is not None:
                partial.unlink(missing_ok=True)
            self._report_full()

    def held_bytes(self) -> int:
        """Returns the bytes that all processes have stored."""
        try:
            return (self.folder / _COUNTER).stat().st_size * _COUNTED
        except OSError:
            return 0

    def _report_full(self) -> None:
        """Logs once, of all processes of a run, that nothing more is kept."""
        with contextlib.suppress(OSError), (self.folder / _FULL).open("x"):
            logger.warning(
                "The image cache is full: %d images in %.1f GB; all others are decoded every time. For more, raise cache_gb, or delete %s",
                *(len(list(self.folder.glob("*.npy"))), self.held_bytes() / 1e9, self.folder),
            )


def _disk_folder() -> Path:
    folder = cache_folder()
    if folder is None:
        raise InputError("cache=disk: MASKRCNN_EXT_CACHE=off, or there is no home folder: set it to a folder")
    return folder / "images"


def _memory_folder() -> Path:
    """Returns a folder in memory that all processes with the same parent share if this run has several, and removes those of dead runs."""
    if not _MEMORY.is_dir():
        raise InputError(f"cache=ram needs {_MEMORY}, which this system does not have: use cache=disk")
    for folder in _own_folders():
        if not psutil.pid_exists(int(folder.name.rpartition("-")[2])):
            shutil.rmtree(folder, ignore_errors=True)
    process = os.getppid() if comm.get_world_size() > 1 else os.getpid()
    return _MEMORY / f"{_PREFIX}-{os.getuid()}-{process}"


def _own_folders() -> Iterator[Path]:
    return (path for path in _MEMORY.glob(f"{_PREFIX}-{os.getuid()}-*") if path.name.rpartition("-")[2].isdecimal())


def _remove_old_partials(folder: Path) -> None:
    """Removes what killed processes left, and not what others are writing."""
    for file in folder.glob(f"{_PARTIAL}*"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > _PARTIAL_AGE:
                file.unlink()


def _remove(folder: Path, process: int) -> None:
    """Removes a folder in memory at the end of the process that made it, not of its workers."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
