"""Runs, ensembles and exported models answer with the same keys and the objects of their predictors."""

import cv2
import numpy as np
import pytest

from maskrcnn_ext import EnsemblePredictor, InputError, Predictor
from maskrcnn_ext.ops.rle import decode_rle, with_byte_counts
from maskrcnn_ext.serving.detectors import ModelSource
from tests.helpers.exported_models import detector, exported, pictures  # noqa: F401  # fixtures
from tests.helpers.exporting import CLASSES
from tests.inference.conftest import photo, run, spec  # noqa: F401  # fixtures


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_answers_with_the_objects_of_its_predictor(run, photo, count):
    source = ModelSource((str(run),) * count, device="cpu")
    served = source.load()
    predictor = Predictor(run, device="cpu") if count == 1 else EnsemblePredictor([run, run], device="cpu")
    found, _ = predictor.predict([photo, photo], batch_size=2)
    image = served.pixels(photo.read_bytes())
    first, second = served.detect([image, image])
    assert first == second
    assert served.classes == list(predictor.classes.names)
    assert [one["class"] for one in first] == found.class_names
    assert [one["score"] for one in first] == found.scores.tolist()
    for one, mask in zip(first, found.pred_masks, strict=True):
        np.testing.assert_array_equal(decode_rle(with_byte_counts(one["segmentation"])), mask.numpy())
    assert served.detect([]) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "opencv"])
def test_an_exported_model_answers_with_its_objects(exported, pictures, kind):
    pytest.importorskip({"onnx": "onnxruntime", "opencv": "onnx"}[kind])
    from maskrcnn_ext.interop.export.runtimes import open_model
    from maskrcnn_ext.interop.export.standalone.paste import full_masks

    file = exported(kind)
    served = ModelSource((str(file),)).load()
    assert served.classes == list(CLASSES.names)
    paths = sorted(pictures.glob("*.png"))[:2]
    answers = served.detect([served.pixels(path.read_bytes()) for path in paths])
    for path, objects in zip(paths, answers, strict=True):
        image = cv2.imread(str(path))
        found = open_model(file)(image)
        assert len(objects) == len(found["scores"]) > 0
        assert [one["category_id"] for one in objects] == [(1, 2, 3, 5, 8)[index] for index in found["classes"]]
        x0, y0, width, height = np.array([one["bbox"] for one in objects]).T
        np.testing.assert_allclose(np.stack([x0, y0, x0 + width, y0 + height], axis=1), found["boxes"], rtol=1e-6)
        for one, mask in zip(objects, full_masks(found["masks"], image.shape[:2]), strict=True):
            np.testing.assert_array_equal(decode_rle(with_byte_counts(one["segmentation"])), mask)


@pytest.mark.slow
def test_an_exported_model_refuses_unreadable_images(exported):
    pytest.importorskip("onnxruntime")
    served = ModelSource((str(exported("onnx")),)).load()
    deep = cv2.imencode(".png", np.zeros((4, 5, 3), np.uint16))[1].tobytes()
    with pytest.raises(InputError, match="16-bit colours"):
        served.pixels(deep)
    with pytest.raises(InputError, match="cannot be read"):
        served.pixels(cv2.imencode(".png", np.zeros((90, 90, 3), np.uint8))[1].tobytes()[:60])
    with pytest.raises(InputError, match="without weights"):
        ModelSource((str(exported("onnx")),), device="cpu").load()


def test_models_that_cannot_be_served(run, tmp_path):
    with pytest.raises(InputError, match="have their own weights"):
        ModelSource((str(run), str(run)), weights="a.pth").load()
    with pytest.raises(InputError, match="no such model"):
        ModelSource((str(tmp_path / "model.onnx"),)).load()
