"""Keys of a yacs R-CNN become keys of a LazyConfig. Whole configs are compared in test_to_lazy.py."""

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.config.yacs.reader import YamlReader
from maskrcnn_ext.config.yacs.rules import neck_of, read_rules
from maskrcnn_ext.config.yacs.to_lazy import load_yaml


def reader(name: str, *options: str) -> YamlReader:
    return YamlReader(load_yaml(f"COCO-InstanceSegmentation/mask_rcnn_R_50_{name}.yaml", list(options)))


@pytest.mark.parametrize(("name", "neck"), [("FPN_1x", "fpn"), ("C4_1x", "c4"), ("DC5_1x", "dc5")])
def test_necks(name, neck):
    assert neck_of(reader(name)) == neck


def test_another_backbone_is_an_error():
    with pytest.raises(InputError, match=r"MODEL\.BACKBONE\.NAME=build_vgg .*expected build_resnet_fpn_backbone"):
        neck_of(reader("FPN_1x", "MODEL.BACKBONE.NAME", "build_vgg"))


def test_values_that_are_computed_from_several_keys():
    values = read_rules(reader("DC5_1x", "MODEL.RPN.LOSS_WEIGHT", "2.0", "SOLVER.MAX_ITER", "2000"), "dc5").values
    assert values["model.proposal_generator.anchor_generator.strides"] == [16], "res5 is dilated"
    assert values["model.proposal_generator.head.num_anchors"] == 15
    assert values["model.proposal_generator.loss_weight"] == {"loss_rpn_cls": 2.0, "loss_rpn_loc": 2.0}
    assert values["model.roi_heads.mask_head.conv_dims"] == [256] * 5, "four convolutions and the deconvolution"
    assert values["lr_multiplier.warmup_length"] == 0.5


def test_masks_that_are_off_leave_their_keys_out():
    yaml = reader("FPN_1x", "MODEL.MASK_ON", "False", "MODEL.ROI_MASK_HEAD.CONV_DIM", "7")
    assert not any("mask_head" in key for key in read_rules(yaml, "fpn").values)
    assert "MODEL.ROI_MASK_HEAD.CONV_DIM" not in yaml.unread()
