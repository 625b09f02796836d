"""Videos in H.264 with PyAV, and in OpenCV's codecs without it: frames are read back, and errors name the file."""

import sys

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.video.frames import VideoReader
from maskrcnn_ext.inference.video.writer import VideoWriter
from tests.helpers.videos import SIZE, levels, write_video

SUFFIXES = [".mp4", ".webm", ".avi", ".mkv", ".mov"]


@pytest.fixture(params=["PyAV", "OpenCV"])
def library(request, monkeypatch):
    """Tests both: without PyAV, its import fails."""
    if request.param == "PyAV":
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    return request.param


def codec_of(file):
    return int(cv2.VideoCapture(str(file)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode().lower()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv", ".mov"])
def test_written_frames_are_read_back(tmp_path, suffix):
    with VideoReader(write_video(tmp_path / f"a{suffix}")) as video:
        assert video.size == SIZE
        assert video.fps == pytest.approx(12.5, rel=1e-3)
        assert video.num_frames == 6
        frames = list(video)
    assert levels(frames) == list(range(6))
    assert all(frame.shape == (*SIZE, 3) and frame.dtype == np.uint8 for frame in frames)


def test_the_codec_is_h264_where_it_can_be(tmp_path, library):
    codecs = [codec_of(write_video(tmp_path / f"a{suffix}")) for suffix in SUFFIXES]
    others = ["vp80", "mjpg"]
    expected = ["h264", *others, "h264", "h264"] if library == "PyAV" else ["fmp4", *others, "fmp4", "fmp4"]
    assert codecs == expected


def test_a_player_finds_the_index_before_the_frames(tmp_path):
    pytest.importorskip("av")
    content = write_video(tmp_path / "a.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


@pytest.mark.usefixtures("library")
def test_a_video_that_ends_early_can_be_read(tmp_path):
    def stopped():
        with VideoWriter(tmp_path / "a.mp4", SIZE, 10) as writer:
            writer.write(np.zeros((*SIZE, 3), np.uint8))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped()
    with VideoReader(tmp_path / "a.mp4") as video:
        assert len(list(video)) == 1


@pytest.mark.usefixtures("library")
def test_a_video_without_frames_raises_nothing(tmp_path):
    VideoWriter(tmp_path / "a.mp4", SIZE, 10).close()


@pytest.mark.usefixtures("library")
def test_errors_of_the_writer_name_the_file(tmp_path):
    with pytest.raises(InputError, match=r"a\.gif: unknown video format: expected \.mp4, \.webm"):
        VideoWriter(tmp_path / "a.gif", SIZE, 10)
    with pytest.raises(InputError, match="cannot write a video of 64 x 48 pixels at 10 frames per second there"):
        VideoWriter(tmp_path / "no/folder/a.mp4", SIZE, 10)


@pytest.mark.usefixtures("library")
def test_a_frame_of_another_size_is_refused(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", SIZE, 10) as writer:
        for wrong in (np.zeros((10, 10, 3), np.uint8), np.zeros((*SIZE, 3), np.float32), np.zeros(SIZE, np.uint8)):
            with pytest.raises(ValueError, match="expected"):
                writer.write(wrong)


@pytest.mark.usefixtures("library")
def test_odd_sides_lose_a_pixel(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", (47, 63), 10) as writer:
        writer.write(np.full((47, 63, 3), 120, np.uint8))
    with VideoReader(str(tmp_path / "a.mp4")) as video:
        assert video.size == (46, 62)
        assert abs(next(iter(video)).astype(int) - 120).max() < 10


def test_names_that_are_not_utf8_are_refused(tmp_path):
    with pytest.raises(InputError, match="OpenCV takes only names in UTF-8"):
        VideoWriter(tmp_path / "caf\udce9.mp4", SIZE, 12.5)
