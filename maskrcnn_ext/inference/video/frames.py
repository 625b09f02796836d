"""Frames of a video file or a camera, one at a time, and videos written frame by frame."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# What cameras that do not say are taken to give.
_FPS = 25.0
# What the OpenCV of the package index encodes without further codecs. Browsers play WebM, and no MPEG-4 of this kind.
_CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v"}


class VideoReader:
    """The frames of a video, upright, as (height, width, 3) uint8 BGR; iterate once. A context manager.

    Attributes:
        size: height and width of the frames in pixels, after the rotation that the file asks for.
        fps: frames a second; the mean where they come at a varying rate, and 25 where a camera does not say.
        num_frames: that the file says it has; None for a camera and where it does not say.
    """

    def __init__(self, source: str | Path | int) -> None:
        """Opens it and reads the first frame.

        Args:
            source: a file; the address of a stream, such as ``rtsp://camera/1``; or the number of a camera.

        Raises:
            InputError: there is no such file or camera, or no frame of it can be read.
        """
        self._name = f"camera {source}" if isinstance(source, int) else str(source)
        file = None if isinstance(source, int) or "://" in str(source) else Path(source)
        if file is not None and not file.is_file():
            raise InputError(f"{file}: no such file")
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self._first: np.ndarray | None = self._capture.read()[1]
        if self._first is None:
            self.close()
            reason = (
                "not a video that OpenCV can read, or cut off"
                if file
                else "cannot be opened; is it there, and free to use?"
            )
            raise InputError(f"{self._name}: {reason}")
        self.size: tuple[int, int] = (self._first.shape[0], self._first.shape[1])
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float = fps if math.isfinite(fps) and fps > 0 else _FPS
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames: int | None = int(count) if file and count > 0 else None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the frames. Warns where a file ends before it says it does."""
        frame, self._first = self._first, None
        number = 0
        while frame is not None:
            yield frame
            number += 1
            frame = self._capture.read()[1]
        if self.num_frames is not None and number < self.num_frames:
            logger.warning(
                "%s: %d of its %d frames can be read; it may be cut off", self._name, number, self.num_frames
            )

    def close(self) -> None:
        """Lets go of the file or camera."""
        self._capture.release()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VideoWriter:
    """Writes a video frame by frame: .mp4, .webm (which browsers play), .avi, .mkv or .mov. A context manager.

    Codecs halve the resolution of colours: of an odd height or width the last row or column is left out.
    """

    def __init__(self, file: Path, size: tuple[int, int], fps: float) -> None:
        """Opens the file.

        Args:
            file: replaced where it is there; its suffix says the kind.
            size: height and width of the frames in pixels.
            fps: frames a second.

        Raises:
            InputError: another suffix, or a file that cannot be written.
        """
        codec = _CODECS.get(file.suffix.lower())
        if codec is None:
            raise InputError(f"{file}: videos are written as {', '.join(_CODECS)}")
        self._size = size
        self._writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), fps, (size[1], size[0]))
        if not self._writer.isOpened():
            raise InputError(
                f"{file}: a video of {size[1]} x {size[0]} at {fps:g} frames a second cannot be written there"
            )

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame, (height, width, 3) uint8 BGR.

        Raises:
            ValueError: it is of another size or type, which OpenCV would leave out in silence.
        """
        if frame.shape != (*self._size, 3) or frame.dtype != np.uint8:
            raise ValueError(f"a frame of {frame.shape} {frame.dtype}, expected {(*self._size, 3)} uint8")
        self._writer.write(frame)

    def close(self) -> None:
        """Ends the file: before, it cannot be played."""
        self._writer.release()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
