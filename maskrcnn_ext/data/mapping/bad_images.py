"""Counts bad images over all loader processes. Training skips them, logs each once, and ends if there are too many."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import weakref
from math import sqrt
from pathlib import Path

from maskrcnn_ext.common.ranges import is_share
from maskrcnn_ext.errors import InputError

# A child of Detectron2's logger, the only one that its script sets up, so that these messages reach the log file of every run.
logger = logging.getLogger(f"detectron2.{__name__}")

# Up to this many different bad images never end a run: in a small data set, one image is a large share.
TOLERATED = 5
# If none of this many attempts succeeded, the whole data set is wrong.
_HOPELESS = 3
_LISTED = 20


class BadImages:
    """The list of bad images that the loader processes of a run share.

    The list is a folder with one file per image. Only one process can create a file, so the list works with forked, spawned and no
    worker processes. The share of bad images is that of this process's own attempts; all processes make equally many. The process
    that created the list logs its images when it exits, and removes the folder.
    """

    def __init__(self, max_share: float) -> None:
        """Starts an empty list.

        Args:
            max_share: the run ends if significantly more than this share of the attempts to read an image fail.

        Raises:
            InputError: the number is not a share.
        """
        if not is_share(max_share):
            raise InputError(f"max_bad_share={max_share}: expected a share from 0 to 1")
        self._max_share = max_share
        self._attempts = 0
        self._failures = 0
        self._folder = tempfile.mkdtemp(prefix="maskrcnn_ext_bad_images_")
        # Logged at exit, not when the list is garbage-collected: that may happen in the middle of any other call, where a failing log
        # handler would do harm. Detectron2 closes its log file later, as exit handlers run in reverse order.
        report = functools.partial(_report, self._folder, os.getpid())
        atexit.register(report)
        weakref.finalize(self, _discard_empty, self._folder, report).atexit = False

    def listed(self) -> dict[str, str]:
        """Returns the bad images of all processes with their reasons."""
        return _read(self._folder)

    def count_good(self) -> None:
        """Counts an image that was read."""
        self._attempts += 1

    def add(self, image: str, reason: str) -> None:
        """Counts a bad image, and logs it unless another process has.

        Args:
            image: a text that identifies it.
            reason: one line that names the file.

        Raises:
            InputError: there are too many: more than :data:`TOLERATED` images are bad, and the failures are more than three standard
                deviations above the share, so that chance does not end a run. Or none of the first attempts succeeded.
        """
        self._attempts += 1
        self._failures += 1
        name = hashlib.sha256(image.encode("utf-8", "surrogateescape")).hexdigest()
        with contextlib.suppress(FileExistsError), (Path(self._folder) / name).open("x", encoding="utf-8") as stream:
            stream.write(json.dumps([image, reason]))
            logger.warning("skipped a bad image: %s", reason)
        listed = _read(self._folder)
        expected = self._max_share * self._attempts
        exceeded = len(listed) > TOLERATED and self._failures > expected + 3 * sqrt(expected)
        if exceeded or self._failures == self._attempts >= _HOPELESS:
            raise InputError(
                f"{self._failures} of the {self._attempts} images that this process read are bad, more than max_bad_share="
                f"{self._max_share}: fix them, or raise dataloader.train.mapper.max_bad_share: {_list_reasons(listed)}"
            )


def _read(folder: str) -> dict[str, str]:
    texts = [file.read_text(encoding="utf-8") for file in Path(folder).glob("*")]
    return dict(sorted(json.loads(text) for text in texts if text))  # an empty file is being written


def _list_reasons(listed: dict[str, str]) -> str:
    # Reasons contain commas, so they are separated by semicolons rather than by short_list().
    rest = f"; and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return "; ".join(list(listed.values())[:_LISTED]) + rest


def _report(folder: str, process: int) -> None:
    """Logs the images of a list and removes its folder, in the process that created it."""
    if os.getpid() != process:
        return
    listed = _read(folder)
    if listed:
        logger.warning("bad images that training skipped: %d: %s", len(listed), _list_reasons(listed))
    shutil.rmtree(folder, ignore_errors=True)


def _discard_empty(folder: str, report: functools.partial[None]) -> None:
    """Removes the folder of a list without images, so that a process that creates many lists keeps none of them."""
    if os.getpid() == report.args[1]:
        with contextlib.suppress(OSError):  # it has images, for the report
            Path(folder).rmdir()
            atexit.unregister(report)
