"""Antialiased interpolation as matrix products: what PyTorch computes, in PyTorch and in ONNX Runtime."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_ext.interop.export.interpolation import PortableInterpolation, resize_bicubic
from maskrcnn_ext.interop.export.onnx import write_graph

MAPS = torch.randn(2, 3, 14, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(14, 9), (20, 28), (5, 40), (3, 2), (1, 1)])
def test_equals_pytorch(size):
    expected = F.interpolate(MAPS, size, mode="bicubic", antialias=True)
    torch.testing.assert_close(resize_bicubic(MAPS, size), expected, rtol=0, atol=1e-5)


def test_other_interpolation_is_left_to_pytorch():
    calls = [
        {"size": (20, 28), "mode": "bicubic"},
        {"scale_factor": 1.7, "mode": "bicubic", "antialias": True},
        {"size": (20, 28), "mode": "bilinear", "antialias": True},
        {"size": (20, 28), "mode": "bicubic", "antialias": True, "align_corners": True},
    ]
    for given in calls:
        with PortableInterpolation():
            found = F.interpolate(MAPS, **given)
        assert torch.equal(found, F.interpolate(MAPS, **given))


class Resample(nn.Module):
    """Position embeddings for the grid of an image, as timm's ViTs have them."""

    def forward(self, x):
        return F.interpolate(MAPS, size=x.shape[-2:], mode="bicubic", antialias=True)


def test_sizes_of_the_graph_stay_variable(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    file = tmp_path / "a.onnx"
    write_graph(Resample(), torch.zeros(1, 1, 20, 28), file, ["x"], ["y"], {"x": {2: "height", 3: "width"}}, 17)
    session = runtime.InferenceSession(str(file))
    for size in ((20, 28), (7, 11), (14, 9)):
        (found,) = session.run(None, {"x": torch.zeros(1, 1, *size).numpy()})
        expected = F.interpolate(MAPS, size, mode="bicubic", antialias=True)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
