"""Runs `maskrcnn-ext predict` on a small model; predictors are loaded once."""

import shutil

import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.data.tools.shapes import make_shapes
from maskrcnn_ext.inference.predictor import Predictor as PredictorClass
from tests.helpers.small_model import make_run


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("data"), num_images=6, size=96)


@pytest.fixture(scope="session")
def spec(data):
    return f"coco:{data}@{data.parent / 'images'}"


@pytest.fixture(scope="session")
def run(tmp_path_factory, spec):
    return make_run(tmp_path_factory.mktemp("run"), spec)


@pytest.fixture
def images(data, tmp_path):
    shutil.copytree(data.parent / "images", tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture(scope="session")
def loaded():
    return {}


@pytest.fixture
def predict(run, tmp_path, loaded, monkeypatch):
    """Returns a function that runs the command and returns its status. The tests share loaded predictors."""

    def load(*arguments, **keywords):
        key = repr((arguments, keywords))
        if key not in loaded:
            loaded[key] = PredictorClass(*arguments, **keywords)
        return loaded[key]

    monkeypatch.setattr("maskrcnn_ext.inference.predictor.Predictor", load)

    def call(*arguments, config=run):
        return main(["predict", str(config), *map(str, arguments), "-o", str(tmp_path / "out"), "--device", "cpu"])

    return call


@pytest.fixture
def counted(monkeypatch):
    """Returns a list to which every image that the model predicts is added."""
    seen = []
    batch = PredictorClass._predict_batch

    def noted(self, inputs):
        seen.extend(inputs)
        return batch(self, inputs)

    monkeypatch.setattr(PredictorClass, "_predict_batch", noted)
    return seen
