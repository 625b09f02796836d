"""One small detector and its exports, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from tests.helpers.calibration import images
from tests.helpers.exporting import CLASSES, build


@pytest.fixture(scope="session")
def detector():
    """A Mask R-CNN of ResNet-18, and its mapper."""
    return build()


@pytest.fixture(scope="session")
def exported(detector, tmp_path_factory):
    """From a target to what `export` has written for the detector."""
    from maskrcnn_ext.interop.export import export
    from maskrcnn_ext.interop.export.recipe import build_recipe

    model, mapper = detector
    folder = tmp_path_factory.mktemp("exported")
    names = {
        "onnx": "model.onnx",
        "openvino": "model.xml",
        "torchscript": "model.ts",
        "torch-export": "model.pt2",
        "opencv": "opencv",
    }

    def write(target: str) -> Path:
        file = folder / names[target]
        return file if file.exists() else export(model, build_recipe(model, mapper, CLASSES), target, file)

    return write


@pytest.fixture(scope="session")
def weights(detector, tmp_path_factory):
    """The detector's weights as a file."""
    file = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": detector[0].state_dict()}, file)
    return file


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of the images that the detector is calibrated with."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, image in enumerate(images()):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder
