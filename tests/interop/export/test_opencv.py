"""Exports for OpenCV: the files, and the parts of models that are refused."""

from __future__ import annotations

import pytest
from detectron2.config import instantiate

from maskrcnn_ext import get_config
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import export
from tests.helpers.opencv_models import exported  # noqa: F401 (fixtures)


def test_no_tensor_is_shared_through_an_identity(exported):
    """OpenCV 4.10 and 4.12 read such a bias as garbage, without an error."""
    import onnx

    for file in exported.folder.glob("*.onnx"):
        graph = onnx.load(file).graph
        tensors = {tensor.name for tensor in graph.initializer}
        assert not [node for node in graph.node if node.op_type == "Identity" and node.input[0] in tensors]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_target_": "maskrcnn_ext.TTARCNN"}, "model is a TTARCNN"),
        ({"roi_heads.mask_pooler._target_": "maskrcnn_ext.PreciseROIPooler"}, "mask_head is a PreciseROIPooler"),
        ({"roi_heads.mask_head._target_": "maskrcnn_ext.DCTMaskHead"}, "mask_head is a DCTMaskHead"),
        ({"roi_heads.box_pooler.pooler_type": "ROIPool"}, "is a RoIPool"),
    ],
)
def test_parts_that_opencv_does_not_compute_are_refused(exported, tmp_path, change, reason):
    from omegaconf import OmegaConf

    config = get_config("mask_rcnn_r18_fpn_scratch.py")
    for key, value in change.items():
        OmegaConf.update(config.model, key, value)
    with pytest.raises(InputError, match=reason):
        export(instantiate(config.model).eval(), exported.recipe, "opencv", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_cascades_are_refused(exported, tmp_path):
    model = instantiate(get_config("cascade_mask_rcnn_r18_fpn_scratch.py").model).eval()
    with pytest.raises(InputError, match=r"model.roi_heads is a CascadeROIHeads, which opencv does not support"):
        export(model, exported.recipe, "opencv", tmp_path / "model")
