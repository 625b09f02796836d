"""How every predictor reads images and returns the instances of a model."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.base_predictor import BasePredictor


class Brightness(BasePredictor):
    """Finds one object in an image, whose score is the mean of the first channel over 255."""

    def __init__(self, image_format="BGR"):
        model = SimpleNamespace(device=torch.device("cpu"))
        read = partial(read_pixels, image_format=image_format)
        super().__init__(model, Classes(("cat",), (7,)), "model.pth", image_format, read)

    def prepare(self, pixels):
        return {"score": float(pixels[..., 0].mean()) / 255, "size": pixels.shape[:2]}

    def run(self, inputs, *, batch_size=1):  # noqa: ARG002 (one by one)
        for item in inputs:
            height, width = item["size"]
            boxes, scores = Boxes(torch.tensor([[0.0, 0.0, width, height]])), torch.tensor([item["score"]])
            yield Instances(
                item["size"], pred_boxes=boxes, scores=scores, pred_classes=torch.zeros(1, dtype=torch.int64)
            )


def grey(value):
    return np.full((4, 6, 3), value, np.uint8)


def test_predictions_have_the_order_of_the_images_and_read_them_late():
    predicted = []

    def images():
        for value in (51, 255, 102):
            predicted.append(value)
            yield grey(value)

    predictions = Brightness().predict(images())
    assert next(predictions).scores.tolist() == pytest.approx([0.2])
    assert predicted == [51]
    assert [found.scores.item() for found in predictions] == pytest.approx([1.0, 0.4])


def test_low_scores_are_left_out_alone_and_in_a_row():
    predictor = Brightness()
    assert len(predictor(grey(51), threshold=0.5)) == 0
    assert list(map(len, predictor.predict([grey(51), grey(204)], threshold=0.5))) == [0, 1]
    with pytest.raises(InputError, match="threshold"):
        predictor(grey(51), threshold=2)


def test_files_are_read_in_the_format_of_the_model(tmp_path):
    Image.new("RGB", (6, 4), (255, 0, 51)).save(tmp_path / "a.png")
    found = [Brightness(image_format)(tmp_path / "a.png").scores.item() for image_format in ("BGR", "RGB")]
    assert found == pytest.approx([0.2, 1.0])


def test_the_format_of_arrays():
    assert [Brightness(name).input_format for name in ("BGR", "RGB", "raw")] == ["BGR", "BGR", "raw"]


def test_a_predictor_without_a_run_is_refused():
    with pytest.raises(TypeError, match="abstract"):
        BasePredictor(SimpleNamespace(device="cpu"), Classes((), ()), "", "BGR", lambda record: record)
