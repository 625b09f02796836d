"""Video files: written frames are read back, upright, and errors name the file."""

import logging
import struct

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.video.frames import VideoReader
from tests.helpers.videos import SIZE, levels, picture, write_video


def test_frames_are_read_as_they_are_needed(tmp_path):
    with VideoReader(write_video(tmp_path / "a.avi")) as video:
        frames = iter(video)
        assert levels([next(frames), next(frames)]) == [0, 1]


def test_a_rotated_video_is_read_upright(tmp_path):
    """The track header's matrix (ISO 14496-12, 8.3.2) says: turn by 90 degrees, clockwise."""
    file = write_video(tmp_path / "a.mp4")
    content = bytearray(file.read_bytes())
    matrix = content.index(b"tkhd") + 44
    assert struct.unpack(">9i", content[matrix : matrix + 36])[0] == 1 << 16
    one = 1 << 16
    content[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, SIZE[0] << 16, 0, 1 << 30)
    file.write_bytes(content)
    with VideoReader(file) as video:
        assert video.size == SIZE[::-1]
        last = list(video)[-1]
    assert last.shape == (SIZE[1], SIZE[0], 3)
    expected = np.rot90(picture(5), k=-1)
    assert np.abs(last.astype(int) - expected).mean() < 12


def test_a_truncated_file_is_logged(tmp_path, caplog):
    file = write_video(tmp_path / "a.avi")
    file.write_bytes(b"00dc".join(file.read_bytes().split(b"00dc")[:4]))
    with VideoReader(file) as video, caplog.at_level(logging.WARNING):
        count = len(list(video))
    assert 0 < count < 6
    assert f"{file}: {count} of its 6 frames can be read" in caplog.text


@pytest.mark.parametrize("kept", [0.0, 0.9, None])
def test_files_that_are_not_videos_are_refused(tmp_path, kept):
    file = write_video(tmp_path / "a.mp4")
    content = file.read_bytes()
    file.write_bytes(b"no video at all" if kept is None else content[: int(kept * len(content))])
    with pytest.raises(InputError, match=f"{file}: not a video that OpenCV can read") as caught:
        VideoReader(file)
    assert "\n" not in str(caught.value)


def test_names_that_are_not_utf8_are_refused(tmp_path):
    file = tmp_path / "caf\udce9.mp4"
    file.write_bytes(b"")
    with pytest.raises(InputError, match="OpenCV takes only names in UTF-8"):
        VideoReader(file)


def test_missing_files_and_cameras_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.mp4: no such file"):
        VideoReader(tmp_path / "nowhere.mp4")
    with pytest.raises(InputError, match="camera 97: cannot be opened"):
        VideoReader(97)


def test_opencv_itself_reads_the_same(tmp_path):
    file = write_video(tmp_path / "a.webm")
    capture = cv2.VideoCapture(str(file))
    with VideoReader(file) as video:
        for frame in video:
            assert np.array_equal(frame, capture.read()[1])
    assert not capture.read()[0]
