"""The packages' tensors get timm's names."""

from pathlib import Path

import pytest
import timm
import torch

from maskrcnn_ext.modeling.backbones.lite_weights import PACKAGES, is_lite, rename_lite


def packaged(package):
    module = pytest.importorskip(package)
    (file,) = Path(module.__file__).parent.glob("models/*.pth")
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_tensor_has_the_name_and_shape_of_timm(package):
    weights = packaged(package)
    assert is_lite(weights)
    renamed = rename_lite(weights)
    with torch.device("meta"):
        expected = timm.create_model(PACKAGES[package]).state_dict()
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in expected.items()}
    # Both list their tensors in the order of computation: an independent way to match them.
    for ours, (key, value) in zip(renamed, zip(expected, weights.values(), strict=True), strict=True):
        assert ours == key
        assert renamed[ours] is value


def test_names_of_timm_are_not_taken_for_them():
    with torch.device("meta"):
        assert not is_lite(timm.create_model("tf_efficientnet_lite0").state_dict())
