"""The LazyConfig for settings of Matterport's Mask R-CNN."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detectron2.config import instantiate
from detectron2.data import transforms as T

from maskrcnn_ext.interop.weights.conversion import KeyReport
from maskrcnn_ext.interop.weights.matterport.lazy_config import build_config
from maskrcnn_ext.interop.weights.matterport.settings import DEFAULTS, MatterportSettings, read_settings


def settings_of(tmp_path, text, name="config.py"):
    (tmp_path / name.partition(":")[0]).write_text(text)
    return read_settings(tmp_path / name)


def test_no_default_is_without_effect():
    settings = MatterportSettings("defaults", DEFAULTS)
    build_config(settings)
    report = KeyReport("weights.h5")
    settings.add_to_report(report)
    assert report.unused == {}


def test_settings_have_become_the_keys_that_mean_the_same(tmp_path):
    given = {
        "BACKBONE": "resnet50",
        "NUM_CLASSES": 4,
        "IMAGE_MIN_DIM": 256,
        "IMAGE_MAX_DIM": 512,
        "IMAGE_MIN_SCALE": 2.0,
        "RPN_ANCHOR_RATIOS": [0.5, 1, 4],
        "BBOX_STD_DEV": [0.1, 0.2, 0.4, 0.5],
        "LEARNING_RATE": 0.002,
        "LEARNING_MOMENTUM": 0.8,
        "WEIGHT_DECAY": 0,
        "STEPS_PER_EPOCH": 77,
        "TRAIN_ROIS_PER_IMAGE": 32,
        "ROI_POSITIVE_RATIO": 0.5,
        "RPN_NMS_THRESHOLD": 0.9,
        "GRADIENT_CLIP_NORM": None,
        "GPU_COUNT": 2,
        "IMAGES_PER_GPU": 3,
        "LOSS_WEIGHTS": {"mrcnn_bbox_loss": 3.0},
        "POST_NMS_ROIS_TRAINING": 20,
        "MASK_POOL_SIZE": 7,
        "MASK_SHAPE": [14, 14],
    }
    cfg = build_config(settings_of(tmp_path, json.dumps(given), "settings.json"))
    rpn, heads = cfg.model.proposal_generator, cfg.model.roi_heads
    assert cfg.model.square_size == 512
    assert cfg.dataloader.test.mapper.augmentations[0].min_scale == 2.0
    assert cfg.dataloader.train.mapper.augmentations[0].pad == "square"
    assert rpn.anchor_generator.aspect_ratios == [2, 1, 0.25]
    assert rpn.post_nms_topk == [20, 1000]
    assert rpn.pre_nms_topk == [6000, 6000]
    assert rpn.nms_thresh == 0.9
    assert heads.box_predictor.box2box_transform.weights == [5, 10, 2, 2.5]
    assert heads.box_predictor.loss_weight == {"loss_cls": 1.0, "loss_box_reg": 3.0}
    assert (heads.batch_size_per_image, heads.positive_fraction) == (32, 0.5)
    assert (cfg.optimizer.lr, cfg.optimizer.momentum, cfg.optimizer.weight_decay) == (0.002, 0.8, 0)
    assert (cfg.train.eval_period, cfg.train.checkpointer.period, cfg.train.clip_grad) == (77, 77, None)
    assert cfg.dataloader.train.total_batch_size == 6
    assert {instantiate(cfg.lr_multiplier)(where) for where in (0.0, 0.5, 1.0)} == {1.0}
    model = instantiate(cfg.model)
    assert model.roi_heads.mask_pooler.output_size == (7, 7)
    assert model.roi_heads.box_predictor.cls_score.out_features == 4


@pytest.mark.parametrize(
    ("mode", "train", "test", "square"),
    [
        ("square", [(128, 128)], (96, 128), 128),
        ("pad64", [(128, 192)], (100, 133), 0),
        ("none", [(64, 128)], (60, 80), 0),
        ("crop", [(100, 100)], (100, 133), 0),
    ],
)
def test_images_are_resized_by_the_mode(mode, train, test, square):
    cfg = build_config(
        MatterportSettings("test", {"IMAGE_RESIZE_MODE": mode, "IMAGE_MIN_DIM": 100, "IMAGE_MAX_DIM": 128})
    )

    def resized(augmentations):
        image = T.AugInput(np.zeros((60, 80, 3), np.uint8))
        T.AugmentationList(instantiate(augmentations))(image)
        return image.image.shape[:2]

    assert resized(cfg.dataloader.train.mapper.augmentations) in train
    assert resized(cfg.dataloader.test.mapper.augmentations) == test
    assert cfg.model.square_size == square
    assert bool(cfg.dataloader.train.mapper.get("recompute_boxes")) == (mode == "crop")


@pytest.mark.parametrize(("channels", "image_format"), [(1, "L"), (4, "raw")])
def test_other_numbers_of_channels(channels, image_format):
    cfg = build_config(MatterportSettings("test", {"IMAGE_CHANNEL_COUNT": channels, "MEAN_PIXEL": [1.0] * channels}))
    assert cfg.dataloader.train.mapper.image_format == cfg.dataloader.test.mapper.image_format == image_format
    assert cfg.model.input_format == image_format
    assert instantiate(cfg.model.backbone.bottom_up.stem).conv1.in_channels == channels
