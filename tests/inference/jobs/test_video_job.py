"""Videos: frames are items of a job, with tracks, and are written to videos."""

import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext.inference.jobs.video_job import name_videos
from maskrcnn_ext.inference.predictor import Predictor as PredictorClass
from maskrcnn_ext.inference.sources import InputImage, Inputs
from maskrcnn_ext.inference.video.frames import VideoReader
from maskrcnn_ext.inference.video.writer import VideoWriter

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def results(folder):
    return json.loads((folder / "predictions.json").read_text())


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def make_video(images, file, frames=6):
    still = cv2.resize(cv2.imread(str(images / "000002.jpg")), (128, 128))
    with VideoWriter(file, (96, 96), 10.0) as video:
        for number in range(frames):
            video.write(np.ascontiguousarray(still[3 * number : 96 + 3 * number, :96]))
    return file


def test_a_video_gets_a_video_tracks_and_frames(predict, images, tmp_path, counted):
    file = make_video(images, tmp_path / "clip.mp4")
    assert predict(file, "--track", "--save", "video,mots,labels", "--batch", 2) == 0
    out = tmp_path / "out"
    with VideoReader(out / "video/clip.mp4") as video:
        assert video.fps == pytest.approx(10)
        assert sum(1 for _ in video) == 6
    assert sorted(p.name for p in (out / "labels/clip").iterdir()) == [f"{n:06d}.png" for n in range(1, 7)]
    found = results(out)
    assert all("track_id" in result for result in found)
    assert {result["image_id"] for result in found} == set(range(1, 7))
    rows = (out / "mots/clip.txt").read_text().splitlines()
    assert {row.split()[0] for row in rows} == set("012345")
    table = json.loads((out / "images.json").read_text())["images"]
    assert table[2] == {"id": 3, "file_name": f"{file}@3", "height": 96, "width": 96}
    before = files(out)
    assert predict(file, "--track", "--save", "video,mots,labels") == 0
    assert len(counted) == 6
    after = files(out)
    assert after["mots/clip.txt"] == before["mots/clip.txt"]
    assert after["predictions.json"] == before["predictions.json"]


def test_failed_frames_stay_in_the_video(predict, images, tmp_path, monkeypatch):
    file = make_video(images, tmp_path / "clip.mp4")
    batch, calls = PredictorClass._predict_batch, []

    def second_fails(self, inputs):
        calls.append(inputs)
        if len(calls) in (2, 3, 4, 5, 6, 7, 8):
            raise RuntimeError("no")
        return batch(self, inputs)

    monkeypatch.setattr(PredictorClass, "_predict_batch", second_fails)
    assert predict(file, "--track", "--save", "video,mots") == 3
    with VideoReader(tmp_path / "out/video/clip.mp4") as video:
        assert sum(1 for _ in video) == 6
    assert f"{file}@" in (tmp_path / "out/failed.txt").read_text()


def test_images_and_videos_are_numbered_together(predict, images, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    clips = [make_video(images, tmp_path / "a/clip.mp4", 2), make_video(images, tmp_path / "b/clip.mp4", 3)]
    assert predict(images / "000001.jpg", *clips) == 0
    table = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert [image["id"] for image in table] == [1, 2, 3, 4, 5, 6]
    assert sorted(p.name for p in (tmp_path / "out/video").iterdir()) == ["clip.mp4", "clip_2.mp4"]


def test_names_of_videos_differ_from_folders_of_images():
    items = [InputImage("k", "clip/000001", 1, {}, "clip/000001.png")]
    assert name_videos(Inputs(items, ["clip.mp4", 0, "b/clip.mp4"])) == [
        ("clip_2", "clip.mp4"),
        ("camera_0", 0),
        ("clip_3", "b/clip.mp4"),
    ]
