"""Detectors on networks of timm: `verify` passes, also at other sizes than the traced one."""

import copy

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from maskrcnn_ext import get_config
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.interop.export import export
from maskrcnn_ext.interop.export.interpolation import PortableInterpolation
from maskrcnn_ext.interop.export.recipe import build_recipe
from maskrcnn_ext.interop.export.runtimes import open_model
from maskrcnn_ext.interop.export.verify import Limits, Reference, verify
from tests.helpers.calibration import images
from tests.helpers.timm_models import NETS, detector, make_detector

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


class Levels(nn.Module):
    """The levels of a pyramid without their names."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return tuple(self.backbone(x).values())


def strong_attention(net):
    """Amplifies queries and keys: attention of random weights hardly depends on positions."""
    for block in net.blocks:
        attention = block.attn
        for layer in (attention.qkv, getattr(attention, "q_proj", None), getattr(attention, "k_proj", None)):
            if layer is not None:
                layer.weight.data *= 15


@pytest.mark.parametrize(
    "name",
    [
        "EfficientNet",
        pytest.param("eva02_tiny_patch14_224", marks=pytest.mark.slow),
        pytest.param("vit_small_patch16_dinov3", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_the_exported_maps_are_as_exact_as_pytorch(name, tmp_path):
    """Padding, resizing and positions of the graph are right at other sizes: masks of random weights that differ are due to rounding."""
    runtime = pytest.importorskip("onnxruntime")
    backbone, file = (detector(name) if name in NETS else make_detector(name, None)).backbone, tmp_path / "a.onnx"
    if backbone.bottom_up.is_plain:
        strong_attention(backbone.bottom_up.net)
    sizes = {"x": {2: "height", 3: "width"}}
    with PortableInterpolation():
        torch.onnx.export(
            Levels(backbone), (torch.zeros(1, 3, 64, 96),), file, dynamo=False, input_names=["x"], dynamic_axes=sizes
        )
    image = torch.randn(1, 3, 96, 160)
    backbone.eval()
    exact = Levels(copy.deepcopy(backbone).double())(image.double())
    found = runtime.InferenceSession(file).run(None, {"x": image.numpy()})
    for one, level, expected in zip(map(torch.from_numpy, found), Levels(backbone)(image), exact, strict=True):
        assert (one - expected).norm() <= 2 * (level - expected).norm() + 1e-6 * expected.norm()


@pytest.mark.slow
@pytest.mark.parametrize("family", NETS)
def test_openvino_finds_the_same(family, mapper, tmp_path):
    pytest.importorskip("openvino")
    check(detector(family), mapper, "openvino", tmp_path / "a.xml")


@pytest.mark.slow
def test_eva02_finds_the_same(mapper, tmp_path):
    pytest.importorskip("onnxruntime")
    check(make_detector("eva02_tiny_patch14_224", None), mapper, "onnx", tmp_path / "a.onnx")
