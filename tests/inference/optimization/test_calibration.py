"""Scales: chosen by squared error, and kept for one state of weights and images."""

import torch
from torch import nn

from maskrcnn_ext.inference.optimization.calibration import (
    Calibration,
    CalibrationFile,
    Observer,
    choose_scale,
    digest_of,
    weight_names,
    weights_digest,
)
from maskrcnn_ext.ops.quantized import Scale


def error(samples, scale):
    integers = (samples / scale.scale + scale.zero_point).round().clamp(0, 255)
    return float(((integers - scale.zero_point) * scale.scale - samples).square().mean())


def test_a_rare_outlier_does_not_set_the_range():
    torch.manual_seed(0)
    samples = torch.cat([torch.randn(100_000).abs(), torch.tensor([12.0])])
    found, whole = choose_scale(samples, 0.0, 12.0), Scale(12 / 255, 0)
    assert found.zero_point == 0
    assert found.scale < whole.scale
    assert error(samples, found) < 0.95 * error(samples, whole)


def test_uniform_values_keep_their_range():
    samples = torch.linspace(-1, 3, 10_000)
    found = choose_scale(samples, -1.0, 3.0)
    assert abs(found.scale - 4 / 255) < 1e-6
    assert found.zero_point == 64


def test_an_observer_sees_all_channels_and_images():
    observer = Observer()
    maps = torch.zeros(1, 8, 64, 64)
    maps[:, 5] = 2.0
    observer.see("layer", "input", maps)
    observer.see("layer", "input", -maps / 2)
    observer.see("layer", "input", maps[:0])
    observer.see("unused", "input", maps[:0])
    scales, means = observer.result()
    assert list(scales) == [("layer", "input")]
    assert means == {"layer": [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0]}
    scale, zero_point = scales["layer", "input"]
    assert abs(scale * (255 - zero_point) - 2) <= scale
    assert abs(scale * zero_point - 1) <= scale


def test_a_file_holds_the_scales_of_one_key(tmp_path):
    path = tmp_path / "model.int8.json"
    scales = {("a", "input"): Scale(0.1, 3), ("a", "output"): Scale(0.2, 0), ("b", "input"): Scale(0.3, 255)}
    calibration = Calibration(scales, {"a": [0.1, -2.0], "b": [0.0]})
    assert CalibrationFile(path, "one").read() is None
    CalibrationFile(path, "one").write(calibration)
    assert CalibrationFile(path, "one").read() == calibration
    assert CalibrationFile(path, "other").read() is None
    for damage in ("", "{", "[]", '{"key": "one"}', '{"key": "one", "scales": {"a": {"input": 3}}}'):
        path.write_text(damage)
        assert CalibrationFile(path, "one").read() is None


def test_digests_change_with_weights_and_texts():
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(4)
    before = weights_digest(layer)
    assert weights_digest(layer) == before
    layer.running_mean[2] = 1
    assert weights_digest(layer) != before
    layer.register_buffer("pixel_mean", torch.zeros(3), persistent=False)  # as in Detectron2's models
    before = weights_digest(layer)
    layer.pixel_mean[0] = 1
    assert weights_digest(layer) != before
    assert digest_of(["a", "b"]) != digest_of(["a", "c"])


def test_names_are_of_parameters():
    model = nn.Sequential(nn.Linear(2, 3))
    assert weight_names(model)[id(model[0].weight)] == "0.weight"
