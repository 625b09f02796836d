"""Video files: written frames are read back, upright, and errors name the file."""

import logging
import struct

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.video.frames import VideoReader, VideoWriter

SIZE = (48, 64)


def picture(number):
    """The left upper quarter tells the frame: codecs keep large areas."""
    frame = np.full((*SIZE, 3), 40, np.uint8)
    frame[: SIZE[0] // 2, : SIZE[1] // 2] = 40 * number
    return frame


def write(file, count=6):
    with VideoWriter(file, SIZE, 12.5) as writer:
        for number in range(count):
            writer.write(picture(number))
    return file


def levels(frames):
    return [round(float(frame[4:20, 4:28].mean()) / 40) for frame in frames]


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv", ".mov"])
def test_written_frames_are_read_back(tmp_path, suffix):
    with VideoReader(write(tmp_path / f"a{suffix}")) as video:
        assert video.size == SIZE
        assert video.fps == pytest.approx(12.5, rel=1e-3)
        assert video.num_frames == 6
        frames = list(video)
    assert levels(frames) == list(range(6))
    assert all(frame.shape == (*SIZE, 3) and frame.dtype == np.uint8 for frame in frames)


def test_frames_are_read_as_they_are_needed(tmp_path):
    with VideoReader(write(tmp_path / "a.avi")) as video:
        frames = iter(video)
        assert levels([next(frames), next(frames)]) == [0, 1]


def test_a_rotated_video_is_read_upright(tmp_path):
    """The track header's matrix (ISO 14496-12, 8.3.2) says: turn by 90 degrees, clockwise."""
    file = write(tmp_path / "a.mp4")
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
    file = write(tmp_path / "a.avi")
    file.write_bytes(b"00dc".join(file.read_bytes().split(b"00dc")[:4]))
    with VideoReader(file) as video, caplog.at_level(logging.WARNING):
        count = len(list(video))
    assert 0 < count < 6
    assert f"{file}: {count} of its 6 frames can be read" in caplog.text


@pytest.mark.parametrize("kept", [0.0, 0.9, None])
def test_files_that_are_not_videos_are_refused(tmp_path, kept):
    file = write(tmp_path / "a.mp4")
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
    with pytest.raises(InputError, match="OpenCV takes only names in UTF-8"):
        VideoWriter(file, SIZE, 12.5)


def test_missing_files_and_cameras_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.mp4: no such file"):
        VideoReader(tmp_path / "nowhere.mp4")
    with pytest.raises(InputError, match="camera 97: cannot be opened"):
        VideoReader(97)


def test_errors_of_the_writer_name_the_file(tmp_path):
    with pytest.raises(InputError, match=r"a\.gif: unknown video format: expected \.mp4, \.webm"):
        VideoWriter(tmp_path / "a.gif", SIZE, 10)
    with pytest.raises(InputError, match="cannot write a video of 64 x 48 pixels at 10 frames per second there"):
        VideoWriter(tmp_path / "no/folder/a.mp4", SIZE, 10)


def test_a_frame_of_another_size_is_refused(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", SIZE, 10) as writer:
        for wrong in (np.zeros((10, 10, 3), np.uint8), np.zeros((*SIZE, 3), np.float32), np.zeros(SIZE, np.uint8)):
            with pytest.raises(ValueError, match="expected"):
                writer.write(wrong)


def test_odd_sides_lose_a_pixel(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", (47, 63), 10) as writer:
        writer.write(np.full((47, 63, 3), 120, np.uint8))
    with VideoReader(str(tmp_path / "a.mp4")) as video:
        assert video.size == (46, 62)
        assert abs(next(iter(video)).astype(int) - 120).max() < 10


def test_opencv_itself_reads_the_same(tmp_path):
    file = write(tmp_path / "a.webm")
    capture = cv2.VideoCapture(str(file))
    with VideoReader(file) as video:
        for frame in video:
            assert np.array_equal(frame, capture.read()[1])
    assert not capture.read()[0]
