"""Writes videos frame by frame: in H.264, which browsers play, if PyAV is installed (extra ``video``), else with OpenCV's codecs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from maskrcnn_ext.common.text import or_list
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.video.frames import check_utf8

# Codecs that the OpenCV on PyPI encodes by itself. Browsers play WebM, but not MPEG-4 of this kind.
_CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v"}
_H264 = (".mp4", ".mkv", ".mov")
_QUALITY: dict[str, object] = {"crf": "20", "preset": "veryfast"}  # of x264; the other encoders of H.264 have their own
_LARGEST_DENOMINATOR = 65535  # of the rate, in the header of an MP4


class VideoWriter:
    """Writes a video frame by frame: .mp4, .webm, .avi, .mkv or .mov. A context manager.

    Browsers play WebM, and MP4 and MOV in H.264. Codecs halve the resolution of colours, so the last row or column of an odd height or
    width is left out.

    Example:
        >>> with VideoWriter(tmp_path / "a.mp4", size=(48, 64), fps=10) as video:
        ...     video.write(np.zeros((48, 64, 3), np.uint8))
        >>> from maskrcnn_ext.inference.video.frames import VideoReader
        >>> with VideoReader(tmp_path / "a.mp4") as video:
        ...     video.size, video.num_frames
        ((48, 64), 1)
    """

    def __init__(self, file: Path, size: tuple[int, int], fps: float) -> None:
        """Opens the file.

        Args:
            file: the file to write, replaced if it exists; its suffix selects the format.
            size: height and width of the frames in pixels.
            fps: frames per second.

        Raises:
            InputError: the suffix is unknown, or the file cannot be written.
        """
        suffix = file.suffix.lower()
        if suffix not in _CODECS:
            raise InputError(f"{file}: unknown video format: expected {or_list(list(_CODECS))}")
        check_utf8(str(file))
        self._size = size
        encode: Callable[[Path, tuple[int, int], float], _Encoder]
        encode = _H264Encoder if suffix in _H264 and _has_h264() else _OpenCVEncoder
        try:
            self._encoder = encode(file, size, fps)
        except (OSError, ValueError) as error:  # PyAV's errors are subclasses
            raise InputError(
                f"{file}: cannot write a video of {size[1]} x {size[0]} pixels at {fps:g} frames per second there"
            ) from error

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame (height, width, 3), uint8, BGR.

        Raises:
            ValueError: the frame has another size or dtype; OpenCV would drop it silently.
        """
        if frame.shape != (*self._size, 3) or frame.dtype != np.uint8:
            raise ValueError(f"the frame is {frame.shape} {frame.dtype}: expected {(*self._size, 3)} uint8")
        self._encoder.write(frame)

    def close(self) -> None:
        """Completes the file. Before that, it cannot be played."""
        self._encoder.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _has_h264() -> bool:
    """Returns whether PyAV is installed and has an encoder: that of some distributions has none."""
    try:
        from av import Codec

        Codec("h264", "w")
    except (ImportError, ValueError):
        return False
    return True


class _Encoder(Protocol):
    def write(self, frame: np.ndarray) -> None: ...

    def close(self) -> None: ...


class _OpenCVEncoder:
    def __init__(self, file: Path, size: tuple[int, int], fps: float) -> None:
        codec = cv2.VideoWriter.fourcc(*_CODECS[file.suffix.lower()])
        self._writer = cv2.VideoWriter(str(file), codec, fps, (size[1], size[0]))
        if not self._writer.isOpened():
            raise ValueError("OpenCV cannot open the file")

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(frame)

    def close(self) -> None:
        self._writer.release()


class _H264Encoder:
    def __init__(self, file: Path, size: tuple[int, int], fps: float) -> None:
        import av

        self._height, self._width = size[0] // 2 * 2, size[1] // 2 * 2
        if not (self._height and self._width):
            raise ValueError("H.264 needs two rows and columns")
        self._frame_of: Callable[..., Any] = av.VideoFrame.from_ndarray
        # A player needs the index of the frames first, to begin before it has the whole file.
        options = {} if file.suffix.lower() == ".mkv" else {"movflags": "+faststart"}
        self._container = av.open(str(file), "w", options=options)
        self._stream = self._container.add_stream("h264", rate=Fraction(fps).limit_denominator(_LARGEST_DENOMINATOR))
        self._stream.width, self._stream.height, self._stream.pix_fmt = self._width, self._height, "yuv420p"
        self._stream.options = _QUALITY
        self._container.start_encoding()  # raises if the file cannot be written

    def write(self, frame: np.ndarray) -> None:
        even = np.ascontiguousarray(frame[: self._height, : self._width])
        self._container.mux(self._stream.encode(self._frame_of(even, format="bgr24")))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()
