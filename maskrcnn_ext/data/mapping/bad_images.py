"""Images that cannot be used in training: skipped, named once, counted over all loader processes, and too many of them end the run."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import weakref
from math import sqrt
from pathlib import Path

from maskrcnn_ext.errors import InputError

# Below Detectron2's, which is all that its own script sets up: these messages are in the log file of every run, to its very end.
logger = logging.getLogger(f"detectron2.{__name__}")

# So many different bad images never end a run by themselves: one of a small set is a large share of it.
TOLERATED = 5
# Where none of so many attempts succeeded, the data set as a whole is wrong.
_HOPELESS = 3
_LISTED = 20


class BadImages:
    """The list of bad images that a run's loader processes share.

    It is a folder with a file an image, which no two processes can both make: it works however the processes are started (fork or
    spawn), and without any. The share is that of this process's own attempts, of which every process makes equally many. When the
    list goes away, in the process that made it, it logs what it holds; the folder is removed then.
    """

    def __init__(self, max_share: float) -> None:
        """Starts an empty list.

        Args:
            max_share: of the attempts to read an image; the run ends where significantly more fail.

        Raises:
            InputError: not a share.
        """
        if not 0 <= max_share <= 1:
            raise InputError(f"max_bad_share={max_share}: expected a share from 0 to 1")
        self._max_share = max_share
        self._attempts = 0
        self._failures = 0
        self._folder = tempfile.mkdtemp(prefix="maskrcnn_ext_bad_images_")
        finish = weakref.finalize(self, _finish, self._folder, os.getpid())
        # Where a run ends with its process: before Detectron2 closes the log file, which it has opened earlier than this; a finalizer's
        # own turn comes after that.
        finish.atexit = False
        atexit.register(finish)

    def listed(self) -> dict[str, str]:
        """Returns every bad image that any process has found, with the reason."""
        return _read(self._folder)

    def count_good(self) -> None:
        """Counts an image that could be used."""
        self._attempts += 1

    def add(self, image: str, reason: str) -> None:
        """Counts a bad image, and logs it where no process has done so.

        Args:
            image: what tells it from the others.
            reason: one line that names the file.

        Raises:
            InputError: now there are too many. A share counts as exceeded where the failures are more than three standard deviations
                above it, so that chance does not end a run, and where more than :data:`TOLERATED` images are bad.
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
                f"{self._max_share}: mend them, or set dataloader.train.mapper.max_bad_share: {_told(listed)}"
            )


def _read(folder: str) -> dict[str, str]:
    texts = [file.read_text(encoding="utf-8") for file in Path(folder).glob("*")]
    return dict(sorted(json.loads(text) for text in texts if text))  # an empty one is being written


def _told(listed: dict[str, str]) -> str:
    rest = f"; and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return "; ".join(list(listed.values())[:_LISTED]) + rest


def _finish(folder: str, process: int) -> None:
    if os.getpid() != process:
        return
    listed = _read(folder)
    if listed:
        logger.warning("bad images that training skipped: %d: %s", len(listed), _told(listed))
    shutil.rmtree(folder, ignore_errors=True)
