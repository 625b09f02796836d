"""`optimize` in int8: layers near those in float64, models near those in float32, and the calibration of a Predictor."""

import copy
import logging

import numpy as np
import pytest
import torch
from detectron2.layers import Conv2d
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn

from maskrcnn_ext import InputError, Predictor, optimize
from maskrcnn_ext.inference.optimization.backbone import FusedBlock
from maskrcnn_ext.inference.optimization.calibration import Calibration, ObservedLayers, Observer, weight_names
from maskrcnn_ext.inference.optimization.int8 import (
    Int8Conv2d,
    Int8Layers,
    Int8Linear,
    Int8Upsampling,
    is_int8_conv,
    keep_quantized,
)
from maskrcnn_ext.inference.optimization.timm_nets import trace_timm
from maskrcnn_ext.modeling.backbones.timm_backbone import TimmBackbone
from maskrcnn_ext.ops.quantized import QuantizedMap, Scale, is_supported, rounding_shift
from maskrcnn_ext.ops.workspace import Workspace
from tests.helpers.random_models import FPN, INPUTS, MODELS, build
from tests.helpers.small_model import make_run, same

pytestmark = pytest.mark.skipif(not is_supported(), reason="this CPU or torch has no int8 kernels")
INPUT = Scale(8 / 255, 128)
OUTPUT = Scale(12 / 255, 128)


def layers_of(module, dtype=torch.float32):
    names = weight_names(module)
    scales = {
        (name, kind): INPUT if kind == "input" else OUTPUT for name in names.values() for kind in ("input", "output")
    }
    means = {name: [0.0] * weight.shape[1] for name, weight in module.named_parameters() if weight.dim() > 1}
    return Int8Layers(dtype, Workspace(), names, Calibration(scales, means), [])


def near(found, expected, share=0.04):
    """Whether the error is small beside the values."""
    found = found.dequantize(torch.float32) if isinstance(found, QuantizedMap) else found.float()
    assert (found - expected).norm() <= share * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_convolution_with_and_without_sums(dtype):
    torch.manual_seed(0)
    conv = Conv2d(32, 32, 3, padding=1)
    fused = layers_of(conv, dtype).conv(conv)
    assert isinstance(fused, Int8Conv2d)
    x, residual, half = torch.randn(2, 32, 8, 8), torch.randn(2, 32, 8, 8), torch.randn(2, 32, 4, 4)
    near(fused(x), conv(x))
    kept = residual.clone()
    near(fused.add(x, residual, relu=True), (conv(x) + residual).relu())
    assert torch.equal(residual, kept)
    near(fused.add_upsampled(x, half), conv(x) + nn.functional.interpolate(half, scale_factor=2.0))
    assert fused(x).dtype == dtype
    fused.quantizes_output = True
    assert isinstance(fused(x), QuantizedMap)
    near(fused(fused.quantize(x)), conv(x), 0.06)
    near(fused.add(x, residual, relu=False), conv(x) + residual)
    whole = fused.quantize(residual)
    kept = whole.values.clone()
    near(fused.add(x, whole, relu=False), conv(x) + residual)
    assert torch.equal(whole.values, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_other_layers(dtype):
    torch.manual_seed(0)
    model = nn.ModuleDict({"fc1": nn.Linear(40, 16), "deconv": nn.ConvTranspose2d(32, 16, 2, stride=2)})
    layers = layers_of(model, dtype)
    linear, upsampling = layers.layer(model["fc1"], "fc1"), layers.layer(model["deconv"], "deconv")
    assert isinstance(linear, Int8Linear)
    x = torch.randn(5, 40)
    near(linear(x), model["fc1"](x))
    if isinstance(upsampling, Int8Upsampling):  # needs the compiled kernels
        maps, then = torch.randn(3, 32, 5, 4), (torch.randn(3, 16), torch.randn(3))
        upsampling.relu = True
        expected = model["deconv"](maps).relu()
        near(upsampling(maps), expected)
        logits = torch.einsum("nchw,nc->nhw", expected, then[0])[:, None] + then[1][:, None, None, None]
        near(upsampling(maps, then), logits, 0.06)
        assert upsampling(maps[:0], (then[0][:0], then[1][:0])).shape == (0, 1, 10, 8)


def test_biases_make_up_for_rounded_weights():
    torch.manual_seed(0)
    model = nn.Sequential(Conv2d(32, 16, 1), nn.Linear(16, 8))
    plain, layers = layers_of(model), layers_of(model)
    layers.calibration.means.update({"0.weight": [2.0] * 32, "1.weight": [3.0] * 16})
    shifts = [
        rounding_shift(part.weight.detach(), torch.full((size,), mean))
        for part, size, mean in zip(model, (32, 16), (2.0, 3.0), strict=True)
    ]
    torch.testing.assert_close(layers.conv(model[0]).bias - plain.conv(model[0]).bias, shifts[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        layers.layer(model[1], "fc1").bias - model[1].bias.detach(), shifts[1], atol=1e-6, rtol=0
    )


def test_layers_that_stay_as_they_are():
    model = nn.ModuleDict(
        {"predictor": nn.Conv2d(32, 4, 1), "first": nn.Conv2d(3, 32, 3), "unseen": nn.Conv2d(32, 32, 1)}
    )
    layers = layers_of(model)
    scales = layers.calibration.scales
    for kind in ("input", "output"):
        del scales["unseen.weight", kind]
    for name, conv in model.items():
        assert not isinstance(layers.conv(conv, name), Int8Conv2d)
    assert layers.unseen == ["unseen.weight"]
    assert not is_int8_conv(Conv2d(32, 32, 1, activation=nn.Sigmoid()))


@pytest.mark.parametrize("quantized", [False, True])
@torch.no_grad()
def test_blocks_pass_on_integers(quantized):
    torch.manual_seed(0)
    blocks = nn.Sequential(
        BottleneckBlock(32, 64, bottleneck_channels=32, norm=""),
        BottleneckBlock(64, 64, bottleneck_channels=32, norm=""),
    ).eval()
    x = torch.randn(1, 32, 8, 8).relu()
    expected = blocks(x)
    layers = layers_of(blocks)
    fused = nn.Sequential(*(FusedBlock(block, layers.conv, owns_input=index > 0) for index, block in enumerate(blocks)))
    if quantized:
        keep_quantized(fused)
        assert isinstance(fused[0](x), QuantizedMap)
        assert fused[0].shortcut.quantizes_output
        assert fused[1].inner[0].quantizes_output
    near(fused(x), expected, 0.1)
    assert not isinstance(fused(x), QuantizedMap)


@pytest.fixture(scope="module")
def model():
    return build(FPN)


def test_a_model_predicts_nearly_the_same(model):
    quick = optimize(model, dtype="int8", calibrate=INPUTS)
    features = model.backbone(model.preprocess_image(INPUTS[:1]).tensor)
    with torch.inference_mode():
        for level, value in quick.backbone(quick.preprocess_image(INPUTS[:1]).tensor).items():
            near(value, features[level], 0.35)  # random weights amplify errors
        assert all(len(one["instances"]) >= 5 for one in quick.inference(INPUTS))
        quick.roi_heads.box_predictor.test_score_thresh = 1.0
        assert [len(one["instances"]) for one in quick.inference(INPUTS)] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "FPN"])
def test_other_models_predict(name):
    quick = optimize(build(MODELS[name][0], **MODELS[name][1]), dtype="int8", calibrate=INPUTS)
    assert Int8Conv2d in {type(module) for module in quick.modules()}
    with torch.inference_mode():
        assert all(len(one["instances"]) >= 5 for one in quick.inference(INPUTS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv4_conv_small", "resnet18"])
def test_networks_of_timm_pass_on_integers(name):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    backbone = TimmBackbone(name=name, pretrained=False, norm="BN").eval()
    image = torch.rand(1, 3, 96, 128) * 255
    with torch.no_grad():
        expected = backbone(image)
        observer, workspace = Observer(), Workspace()
        observed = copy.deepcopy(backbone)
        layers = ObservedLayers(workspace, weight_names(observed), observer)
        trace_timm(observed).fuse(layers.conv)(image)
        layers = Int8Layers(torch.float32, workspace, weight_names(backbone), observer.result(), [])
        traced = trace_timm(backbone).fuse(layers.conv)
        keep_quantized(nn.Sequential(traced))
        assert any(getattr(module, "quantizes_output", False) for module in traced.modules())
        for level, value in traced(image).items():
            near(value, expected[level], 0.5)


def test_a_part_without_scales_stays_as_it_is(model, caplog):
    threshold = model.roi_heads.box_predictor.test_score_thresh
    model.roi_heads.box_predictor.test_score_thresh = 1.0
    quick = optimize(model, dtype="int8", calibrate=INPUTS[:1])  # without a detection, the mask head sees nothing
    model.roi_heads.box_predictor.test_score_thresh = threshold
    assert not any(isinstance(module, Int8Conv2d) for module in quick.roi_heads.mask_head.modules())
    assert "not int8: roi_heads.mask_head.deconv, roi_heads.mask_head.mask_fcn1" in caplog.text


@pytest.mark.parametrize("name", ["backbone.bottom_up", "backbone.bottom_up.res4"])
def test_hooks_of_stages_see_tensors(model, name):
    seen = []
    handle = model.get_submodule(name).register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    quick = optimize(model, dtype="int8", calibrate=INPUTS[:1])
    handle.remove()
    seen.clear()
    with torch.inference_mode():
        quick.inference(INPUTS[:1])
    maps = list(seen[0].values()) if isinstance(seen[0], dict) else seen
    assert all(isinstance(value, torch.Tensor) for value in maps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "needs images to calibrate"),
        ({"dtype": "int8", "calibrate": []}, "needs images to calibrate"),
        ({"dtype": "int8", "calibrate": ["a.png"]}, r"has a str: expected tensors \(3, H, W\)"),
        ({"dtype": "int8", "calibrate": torch.zeros(3, 8, 9)}, r"has a tensor \(8, 9\): expected tensors \(3, H, W\)"),
        ({"dtype": "int8", "calibrate": [torch.zeros(4, 8, 9)]}, r"has a tensor \(4, 8, 9\)"),
        ({"dtype": "int8", "calibrate": [torch.zeros(3, 0, 9)]}, r"has a tensor \(3, 0, 9\)"),
        (
            {"dtype": "int8", "calibrate": [torch.full((3, 8, 9), torch.nan)]},
            "the input of .*conv1.weight is not finite",
        ),
        ({"dtype": "fp32", "calibrate": INPUTS}, "calibrate is for dtype=int8, not fp32"),
    ],
)
def test_wrong_arguments_are_refused(model, arguments, message):
    with pytest.raises(InputError, match=message):
        optimize(model, **arguments)


def test_a_processor_without_instructions_is_refused(model, monkeypatch):
    monkeypatch.setattr("maskrcnn_ext.compat.cpu_instructions", lambda: ["AVX2"])
    with pytest.raises(InputError, match="int8 needs a CPU with AVX-512 VNNI or AMX"):
        optimize(model, dtype="int8", calibrate=INPUTS)


def test_a_second_start_reads_no_image(tmp_path, caplog):
    run = make_run(tmp_path / "run", "none")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(2)]
    paths = [tmp_path / f"{index}.npy" for index in range(2)]
    for path, image in zip(paths, images, strict=True):
        np.save(path, image)
    with caplog.at_level(logging.INFO, "maskrcnn_ext"):
        first = Predictor(run, device="cpu", optimize=True, dtype="int8", calibrate=paths)
        assert "calibrated int8 on 2 images" in caplog.text
        caplog.clear()
        second = Predictor(run, device="cpu", optimize=True, dtype="int8", calibrate=paths)
        assert "scales of int8 from" in caplog.text
        caplog.clear()
        changed = ["model.pixel_std=[50.0,60.0,60.0]"]
        Predictor(run, device="cpu", optimize=True, dtype="int8", calibrate=paths, overrides=changed)
        assert "calibrated int8 on 2 images" in caplog.text
    same(first(images[0]), second(images[0]))
    assert (run / "model_final.int8.json").is_file()
