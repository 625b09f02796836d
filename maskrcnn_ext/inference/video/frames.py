"""Reads the frames of a video file or a camera one at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# Frames per second of a camera that does not report them.
_DEFAULT_FPS = 25.0


class VideoReader:
    """The frames of a video, upright, as arrays (height, width, 3), uint8, BGR. Iterate once. A context manager.

    Attributes:
        size: height and width of the frames in pixels, after the rotation that the file states.
        fps: frames per second; the mean if the rate varies, and 25 for a camera that does not report it.
        num_frames: number of frames that the file states; None for a camera, or if the file states none.

    Example:
        ::

            with VideoReader("clip.mp4") as video:
                instances = [predictor(frame) for frame in video]
    """

    def __init__(self, source: str | Path | int) -> None:
        """Opens the video and reads the first frame.

        Args:
            source: a file; the address of a stream, such as ``rtsp://camera/1``; or the number of a camera.

        Raises:
            InputError: the file or camera does not exist, or no frame can be read.
        """
        self._name = f"camera {source}" if isinstance(source, int) else str(source)
        file = None if isinstance(source, int) or "://" in str(source) else Path(source)
        if file is not None and not file.is_file():
            raise InputError(f"{file}: no such file")
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else check_utf8(str(source)))
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self._first: np.ndarray | None = self._capture.read()[1]
        if self._first is None:
            self.close()
            reason = (
                "not a video that OpenCV can read, or truncated"
                if file
                else "cannot be opened: check that it exists and that no other program uses it"
            )
            raise InputError(f"{self._name}: {reason}")
        self.size: tuple[int, int] = (self._first.shape[0], self._first.shape[1])
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float = fps if math.isfinite(fps) and fps > 0 else _DEFAULT_FPS
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames: int | None = int(count) if file and count > 0 else None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the frames. Logs a warning if a file has fewer frames than it states."""
        frame, self._first = self._first, None
        number = 0
        while frame is not None:
            yield frame
            number += 1
            frame = self._capture.read()[1]
        if self.num_frames is not None and number < self.num_frames:
            logger.warning(
                "%s: %d of its %d frames can be read; it may be truncated", self._name, number, self.num_frames
            )

    def close(self) -> None:
        """Closes the file or camera."""
        self._capture.release()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_utf8(name: str) -> str:
    """Returns a name; raises an InputError for one that is not UTF-8, with which OpenCV crashes."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name}: OpenCV takes only names in UTF-8 for videos: rename it") from error
    return name
