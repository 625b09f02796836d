"""The configs of the projects load, save and build; each ablation differs from its baseline in one part."""

import pytest
from detectron2.config import LazyConfig
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from torchvision.ops import RoIPool

import maskrcnn_ext
from tests.configs.test_layout import build
from tests.conftest import ROOT

FILES = sorted((ROOT / "projects").glob("*/*.py"))
ABLATIONS = ROOT / "projects/paper_ablations"


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_config_is_complete_and_survives_saving(file, tmp_path):
    cfg = LazyConfig.load(str(file))
    assert set(cfg) == {"model", "dataloader", "optimizer", "lr_multiplier", "train"}
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    LazyConfig.save(again, str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "head", "pooler", "level"),
    [
        ("table2b_softmax", maskrcnn_ext.SoftmaxMaskHead, ROIPooler, None),
        ("class_agnostic", MaskRCNNConvUpsampleHead, ROIPooler, None),
        ("table2c_roipool", MaskRCNNConvUpsampleHead, ROIPooler, RoIPool),
        ("table2c_roiwarp_average", MaskRCNNConvUpsampleHead, maskrcnn_ext.ROIWarpPooler, None),
        ("table2c_roiwarp_max", MaskRCNNConvUpsampleHead, maskrcnn_ext.ROIWarpPooler, None),
        ("table2d_c5_roialign", MaskRCNNConvUpsampleHead, ROIPooler, None),
        ("table2d_c5_roipool", MaskRCNNConvUpsampleHead, ROIPooler, RoIPool),
        ("table2e_mlp_2_layers", maskrcnn_ext.MLPMaskHead, ROIPooler, None),
        ("table2e_mlp_3_layers", maskrcnn_ext.MLPMaskHead, ROIPooler, None),
    ],
)
def test_an_ablation_builds_its_part(name, head, pooler, level):
    model = build(LazyConfig.load(str(ABLATIONS / f"{name}.py")).model)
    roi_heads = model.roi_heads
    used = roi_heads.pooler if hasattr(roi_heads, "pooler") else roi_heads.mask_pooler
    assert type(roi_heads.mask_head) is head
    assert type(used) is pooler
    if level:
        assert type(used.level_poolers[0]) is level
    if name.startswith("table2d"):
        assert model.backbone.output_shape()["res5"].stride == 32
    if name == "class_agnostic":
        assert roi_heads.mask_head.predictor.out_channels == 1
    if name == "table2c_roiwarp_max":
        assert used.aggregate == "max"
    if name == "table2e_mlp_3_layers":
        assert len([m for m in roi_heads.mask_head.fcs if hasattr(m, "weight")]) == 3


def test_every_ablation_is_tested():
    source = (ROOT / "tests/configs/test_projects.py").read_text()
    assert all(f'"{file.stem}"' in source for file in ABLATIONS.glob("*.py"))
