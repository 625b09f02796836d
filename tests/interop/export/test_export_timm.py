"""Detectors on networks of timm: `verify` agrees with what is exported, in other sizes than the traced one."""

import pytest
from detectron2.config import instantiate

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.interop.export import export
from maskrcnn_ext.interop.export.recipe import build_recipe
from maskrcnn_ext.interop.export.runtimes import open_model
from maskrcnn_ext.interop.export.verify import Limits, Reference, verify
from tests.helpers.calibration import images
from tests.helpers.timm_models import NETS, cached_detector, detector

pytest.importorskip("timm")
QUICK = ("EfficientNet", "ViT")
CLASSES = Classes(names=("a", "b", "c"), category_ids=(1, 2, 3))


@pytest.fixture(scope="module")
def mapper():
    mapper = get_config("mask_rcnn_r18_fpn_scratch.py").dataloader.test.mapper
    mapper.augmentations[0].update(short_edge_length=96, max_size=160)
    return instantiate(mapper)


def check(model, mapper, target, file):
    recipe = build_recipe(model, mapper, CLASSES)
    runtime = open_model(export(model, recipe, target, file))
    named = [(str(number), image) for number, image in enumerate(images())]
    for comparison in verify(runtime, Reference(model, mapper), recipe, named, Limits(mask_iou=0.98)):
        assert comparison.faults == []
        assert comparison.expected


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=() if family in QUICK else pytest.mark.slow) for family in NETS]
)
def test_onnx_finds_the_same(family, mapper, tmp_path):
    pytest.importorskip("onnxruntime")
    check(detector(family), mapper, "onnx", tmp_path / "a.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("family", QUICK)
def test_openvino_finds_the_same(family, mapper, tmp_path):
    pytest.importorskip("openvino")
    check(detector(family), mapper, "openvino", tmp_path / "a.xml")


@pytest.mark.slow
def test_a_network_that_the_exporter_breaks_is_one_line(mapper, tmp_path):
    model = cached_detector("eva02_tiny_patch14_224", None)
    with pytest.raises(InputError, match=r"ONNX's exporter mistakes the shape of scores.*choose another backbone"):
        export(model, build_recipe(model, mapper, CLASSES), "onnx", tmp_path / "a.onnx")
