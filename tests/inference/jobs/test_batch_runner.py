"""Batches: an image that fails is listed, and the others are predicted."""

import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.jobs.batch_runner import failure_reason
from maskrcnn_ext.inference.predictor import Predictor as PredictorClass

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def results(folder):
    return json.loads((folder / "predictions.json").read_text())


def test_a_broken_image_is_listed_and_the_others_are_predicted(predict, images, tmp_path, capsys):
    (images / "000002.jpg").write_bytes(b"no image")
    content = (images / "000004.jpg").read_bytes()
    (images / "000004.jpg").write_bytes(content[: len(content) // 2])
    assert predict(images, "--batch", 2) == 3
    lines = (tmp_path / "out/failed.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(images / "000002.jpg"), str(images / "000004.jpg")]
    error = capsys.readouterr().err
    assert "2 failed" in error
    assert all(line in error for line in lines)
    assert {result["image_id"] for result in results(tmp_path / "out")} == {1, 3, 5, 6}
    # Once repaired, they are predicted in the next run, and the list is removed.
    (images / "000002.jpg").write_bytes(content)
    (images / "000004.jpg").write_bytes(content)
    assert predict(images) == 0
    assert {result["image_id"] for result in results(tmp_path / "out")} == set(range(1, 7))
    assert not (tmp_path / "out/failed.txt").exists()


def test_an_image_that_fails_in_the_model_does_not_lose_its_batch(predict, images, tmp_path, monkeypatch):
    cv2.imwrite(str(images / "000003.jpg"), np.full((96, 96, 3), 255, np.uint8))
    batch = PredictorClass._predict_batch

    def short_of_memory(self, inputs):
        if any(float(image["image"].float().mean()) > 250 for image in inputs):
            raise RuntimeError("out of memory:\n tried to allocate 7 EiB")
        return batch(self, inputs)

    monkeypatch.setattr(PredictorClass, "_predict_batch", short_of_memory)
    assert predict(images, "--batch", 6) == 3
    line = f"{images / '000003.jpg'}: RuntimeError: out of memory: tried to allocate 7 EiB\n"
    assert (tmp_path / "out/failed.txt").read_text() == line
    assert {result["image_id"] for result in results(tmp_path / "out")} == {1, 2, 4, 5, 6}


def test_failure_reasons_are_one_line_and_name_unexpected_errors():
    assert failure_reason(InputError("a.png: no\n such file")) == "a.png: no such file"
    assert failure_reason(RuntimeError("out of\n memory")) == "RuntimeError: out of memory"
