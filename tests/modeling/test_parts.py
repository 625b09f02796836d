"""The catalogue: complete, true to the classes, and its override lines work; the check of pairings names both parts."""

import pytest
from detectron2.config import LazyConfig, instantiate

import maskrcnn_ext
from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.modeling.cost import head_cost, pooler_cost
from maskrcnn_ext.modeling.fit_check import check_fit
from maskrcnn_ext.modeling.mask_heads.base import MaskHead
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS, find_part

PARTS = [*MASK_HEADS, *POOLERS]


def test_every_exported_part_is_in_the_catalogue():
    exported = {name for name in maskrcnn_ext._exports() if name.endswith(("Head", "Pooler"))}
    assert exported == {part.name for part in PARTS}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_override_line_makes_the_part(part):
    cfg = LazyConfig.apply_overrides(get_config("mask_rcnn_r50_fpn_1x"), part.override().split())
    node = cfg.model.roi_heads[part.node]
    if part.node == "mask_head":
        node.num_classes = 1
        assert (cfg.model.roi_heads.mask_pooler is None) == part.pyramid
    if part.name == "ImplicitPointRendMaskHead":
        node.fc_dim = 8  # 290 million weights otherwise
    assert type(instantiate(node)) is part.load()


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_page_tells_source_override_and_every_option(part):
    page = part.describe()
    assert part.paper in page
    assert part.override() in page
    if issubclass(part.load(), MaskHead):
        for option in part.load().own_defaults():
            assert f"{option}:" in page


def test_find_part():
    assert find_part("DCTMaskHead").load() is maskrcnn_ext.DCTMaskHead
    with pytest.raises(InputError, match="did you mean BoundaryMaskHead"):
        find_part("BoundryMaskHead")
    with pytest.raises(InputError, match="maskrcnn-ext parts"):
        find_part("zzz")


def test_costs_are_those_of_a_count_by_hand():
    cost = head_cost(find_part("FCNMaskHead"), channels=32, num_classes=5)
    convs = 4 * 32 * 32 * 9
    deconv, predictor = 32 * 32 * 4, 32 * 5
    assert cost.parameters == convs + 4 * 32 + deconv + 32 + predictor + 5
    assert cost.macs_per_roi == convs * 14 * 14 + deconv * 14 * 14 + predictor * 28 * 28
    assert cost.macs_per_image == 0
    assert cost.output_size == 28


def test_what_is_done_once_an_image_is_told_apart():
    cost = head_cost(find_part("RefineMaskHead"), channels=32, num_classes=5)
    assert cost.macs_per_image > cost.macs_per_roi > 0
    assert pooler_cost(find_part("PreciseROIPooler"), channels=8) == (0, 0, 0, 14)
    assert pooler_cost(find_part("DeformableROIPooler"), channels=8).parameters > 0


WRONG = [
    (
        "mask_rcnn_r18_fpn_scratch",
        ["mask_head._target_=maskrcnn_ext.DCTMaskHead", "mask_pooler.output_size=28"],
        "DCTMaskHead was built for RoI features of 14 x 14 and ROIPooler gives 28 x 28: "
        "set model.roi_heads.mask_pooler.output_size=14",
    ),
    (
        "mask_rcnn_r18_fpn_scratch",
        ["mask_head._target_=maskrcnn_ext.RefineMaskHead", "mask_pooler._target_=maskrcnn_ext.PreciseROIPooler"],
        "RefineMaskHead takes the feature maps and was handed what PreciseROIPooler has pooled",
    ),
    (
        "mask_rcnn_r18_fpn_scratch",
        ["mask_pooler._target_=maskrcnn_ext.DeformableROIPooler"],
        "DeformableROIPooler was built for 256 channels and got 128: set channels=128 on this pooler",
    ),
    (
        "mask_rcnn_r18_fpn_scratch",
        ["box_pooler._target_=maskrcnn_ext.DeformableROIPooler"],
        "DeformableROIPooler was built for 256 channels and got 128",
    ),
    (
        "mask_rcnn_r50_dc5_1x",
        ["mask_head._target_=maskrcnn_ext.BoundaryMaskHead", "mask_pooler=null"],
        r"BoundaryMaskHead was built for feature maps of strides \[4, 8, 16, 32\] and was handed res5",
    ),
]


@pytest.mark.parametrize(("config", "overrides", "message"), WRONG)
def test_a_wrong_pairing_is_named_before_the_first_iteration(config, overrides, message):
    cfg = get_config(config)
    overrides = [f"model.roi_heads.{override}" for override in overrides]
    with pytest.raises(InputError, match=message) as caught:
        check_fit(instantiate(LazyConfig.apply_overrides(cfg, overrides).model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", ["mask_rcnn_r50_c4_1x", "faster_rcnn_r18_fpn_scratch", "mask_keypoint_rcnn_r18_fpn_scratch"]
)
def test_models_without_our_parts_pass(config):
    check_fit(instantiate(get_config(config).model))


def test_the_training_script_says_it_in_one_line(shapes, run_python):
    overrides = ["model.roi_heads.mask_head._target_=maskrcnn_ext.PointRendMaskHead", "train.output_dir=run"]
    overrides += [f"dataloader.{split}.dataset.names=coco:{shapes}@{shapes.parent}" for split in ("train", "test")]
    done = run_python(
        "-m", "maskrcnn_ext.engine.main", "--config-file", "domains/shapes.py", "--num-gpus", "0", *overrides
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: PointRendMaskHead takes the feature maps and was handed what ROIPooler has pooled")
    assert "Traceback" not in done.stderr
