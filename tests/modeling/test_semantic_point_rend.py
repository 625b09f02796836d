"""PointRendSemSegHead equals Detectron2's, and works in Detectron2's Panoptic FPN by one override."""

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.projects import point_rend as reference

from maskrcnn_ext import InputError, PointRendSemSegHead

CHANNELS, CLASSES, SIZE, IGNORED = 16, 5, 64, 255
SHAPES = {f"p{level}": ShapeSpec(channels=CHANNELS, stride=1 << level) for level in (2, 3, 4, 5)}


def make(**options):
    torch.manual_seed(0)
    base = {"num_classes": CLASSES, "conv_dims": 8, "common_stride": 4, "ignore_value": IGNORED, "norm": "GN"}
    small = {"point_fc_dim": 12, "train_num_points": 40, "subdivision_num_points": 100}
    return PointRendSemSegHead(SHAPES, **{**base, **small, "conv_dims": 32, **options})


def detectron2_head():
    cfg = get_cfg()
    reference.add_pointrend_config(cfg)
    semantic, point = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.POINT_HEAD
    semantic.NUM_CLASSES = point.NUM_CLASSES = CLASSES
    semantic.CONVS_DIM, semantic.LOSS_WEIGHT, semantic.IGNORE_VALUE = 32, 0.5, IGNORED
    point.FC_DIM, point.TRAIN_NUM_POINTS, point.SUBDIVISION_NUM_POINTS, point.SUBDIVISION_STEPS = 12, 40, 100, 2
    return reference.semantic_seg.PointRendSemSegHead(cfg, SHAPES)


def pair():
    ours, theirs = make(loss_weight=0.5), detectron2_head()
    torch.nn.init.normal_(ours.point_head.predictor.weight, std=0.5)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def pyramid():
    torch.manual_seed(1)
    return {
        name: torch.randn(2, CHANNELS, SIZE // shape.stride, SIZE // shape.stride) for name, shape in SHAPES.items()
    }


def truth():
    targets = torch.randint(0, CLASSES, (2, SIZE // 8, SIZE // 8), generator=torch.Generator().manual_seed(2))
    targets = targets.repeat_interleave(8, 1).repeat_interleave(8, 2)
    targets[:, :, :5] = IGNORED
    return targets


def test_logits_equal_detectron2s():
    ours, theirs = pair()
    with torch.no_grad():
        found, losses = ours.eval()(pyramid())
        expected, _ = theirs.eval()(pyramid())
    assert losses == {}
    assert found.shape == (2, CLASSES, SIZE, SIZE)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_losses_and_gradients_equal_detectron2s():
    ours, theirs = pair()
    results = []
    for head in (ours, theirs):
        torch.manual_seed(3)
        results.append(head.train()(pyramid(), truth())[1])
        sum(results[-1].values()).backward()
    torch.testing.assert_close(*results)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs.get_parameter(name).grad, atol=1e-5, rtol=1e-4)


def test_features_of_several_maps():
    """Detectron2's inference concatenates them along the images."""
    head = make(point_features=["p2", "p3"])
    assert head.train()(pyramid(), truth())[1]["loss_sem_seg_point"].isfinite()
    assert head.eval()(pyramid())[0].shape == (2, CLASSES, SIZE, SIZE)


def test_points_that_are_all_ignored_have_no_loss():
    head = make()
    loss = head.train()(pyramid(), torch.full((2, SIZE, SIZE), IGNORED))[1]["loss_sem_seg_point"]
    loss.backward()
    assert loss == 0
    assert not head.point_head.predictor.weight.grad.any()


def test_it_replaces_the_semantic_head_of_panoptic_fpn():
    cfg = model_zoo.get_config("common/models/panoptic_fpn.py")
    cfg.model.backbone.out_channels = CHANNELS
    cfg = LazyConfig.apply_overrides(cfg, ["model.sem_seg_head._target_=maskrcnn_ext.PointRendSemSegHead"])
    head = instantiate(cfg.model.sem_seg_head)
    assert type(head) is PointRendSemSegHead
    with torch.no_grad():
        assert head.eval()(pyramid())[0].shape == (2, 54, SIZE, SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"point_features": ["p1"]}, "no feature map p1: set .*point_features to some of p2, p3, p4, p5"),
        ({"common_stride": 6}, "common_stride=6 is no power of 2"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)
