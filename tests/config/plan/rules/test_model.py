"""The network follows the weights that are on the machine, and what the data has labels for."""

from maskrcnn_ext.config.plan.machine import COCO, COCO_KEYPOINTS, IMAGENET_R50, LITE, TIMM_CONVNEXT, TIMM_LITE, Machine
from maskrcnn_ext.config.plan.rules.model import choose_base, choose_model, config_of
from maskrcnn_ext.config.plan.situation import Situation
from tests.helpers.labelled_images import make_fingerprint


def situation_of(*weights, gpu=0, **data):
    found = make_fingerprint(**data)
    return Situation(found, found, Machine(gpu_memory=gpu, weights=weights))


def test_the_best_weights_on_the_machine_are_used():
    assert choose_base(situation_of(COCO, LITE)).weights == COCO
    assert choose_base(situation_of(IMAGENET_R50, LITE)).weights == LITE
    assert choose_base(situation_of(IMAGENET_R50, LITE, gpu=2**34)).weights == IMAGENET_R50
    assert choose_base(situation_of(TIMM_LITE, LITE)).weights == LITE
    assert choose_base(situation_of(TIMM_LITE, TIMM_CONVNEXT)).weights == TIMM_LITE
    assert choose_base(situation_of(TIMM_LITE, TIMM_CONVNEXT, gpu=2**34)).weights == TIMM_CONVNEXT
    assert choose_base(situation_of()).weights == ""


def test_weights_of_timms_cache_are_read_from_it():
    situation = situation_of(TIMM_LITE)
    assert choose_model(situation, choose_base(situation)).settings["model.backbone.bottom_up.pretrained"] is True


def test_a_cpu_trains_few_channels():
    for situation in (situation_of(LITE), situation_of()):
        choice = choose_model(situation, choose_base(situation))
        assert "64 channels" in choice.value
        assert choice.settings["model.backbone.out_channels"] == 64
        assert choice.settings["model.roi_heads.mask_head.conv_dims"] == [64] * 5
    boxes = situation_of(LITE, objects={"outlined": 0.0})
    assert "model.roi_heads.mask_head.conv_dims" not in choose_model(boxes, choose_base(boxes)).settings
    # A trained detector, a GPU and heatmaps of keypoints keep all channels.
    keypoints = situation_of(LITE, objects={"keypoints": ("nose", "tail")})
    for situation in (situation_of(COCO), situation_of(TIMM_CONVNEXT, gpu=2**34), keypoints):
        assert "model.backbone.out_channels" not in choose_model(situation, choose_base(situation)).settings


def test_the_reason_says_what_is_missing():
    situation = situation_of()
    choice = choose_model(situation, choose_base(situation))
    assert "random weights" in choice.value
    assert "no pre-trained weights on this machine" in choice.reason


def test_boxes_only():
    situation = situation_of(objects={"outlined": 0.0})
    choice = choose_model(situation, choose_base(situation))
    assert "boxes only" in choice.value
    assert choice.settings["model.roi_heads.mask_head"] is None
    assert choice.settings["dataloader.train.mapper.use_instance_mask"] is False


def test_keypoints():
    situation = situation_of(COCO, COCO_KEYPOINTS, objects={"keypoints": ("nose", "tail"), "outlined": 0.0})
    base = choose_base(situation)
    choice = choose_model(situation, base)
    assert config_of(situation, base) == "keypoint_rcnn_r50_fpn_3x.py"
    assert choice.settings["model.roi_heads.keypoint_head.num_keypoints"] == 2
    assert choice.settings["dataloader.evaluator.kpt_oks_sigmas"] == [0.05, 0.05]
    with_masks = situation_of(LITE, objects={"keypoints": ("nose", "tail")})
    assert config_of(with_masks, choose_base(with_masks)) == "mask_keypoint_rcnn_r18_fpn_scratch.py"


def test_deep_images_get_the_same_weights():
    for channels in (1, 3, 5):
        deep = situation_of(LITE, images={"dtype": "uint16", "channels": channels, "image_format": "raw"})
        assert choose_base(deep).weights == LITE
