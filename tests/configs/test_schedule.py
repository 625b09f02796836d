"""Solver, input and data settings equal those of Detectron2's yaml configs."""

import pytest
from detectron2 import model_zoo
from detectron2.config import instantiate

from maskrcnn_ext import get_config
from tests.configs.test_layout import OFFICIAL, official_yaml, our_model


@pytest.mark.parametrize("name", OFFICIAL)
def test_training_is_the_official_one(name):
    cfg, official = get_config(name), official_yaml(name)
    solver = official.SOLVER
    assert cfg.train.max_iter == solver.MAX_ITER
    assert cfg.dataloader.train.total_batch_size == solver.IMS_PER_BATCH
    assert (cfg.optimizer.lr, cfg.optimizer.momentum, cfg.optimizer.weight_decay) == (0.02, 0.9, 1e-4)
    assert (solver.BASE_LR, solver.MOMENTUM, solver.WEIGHT_DECAY) == (0.02, 0.9, 1e-4)
    assert cfg.optimizer.params.weight_decay_norm == solver.WEIGHT_DECAY_NORM
    assert cfg.train.init_checkpoint == official.MODEL.WEIGHTS

    schedule = instantiate(cfg.lr_multiplier)
    last = schedule(0.0) * cfg.optimizer.lr
    assert last == pytest.approx(solver.BASE_LR * solver.WARMUP_FACTOR)
    for step, factor in zip((*solver.STEPS,), (0.1, 0.01), strict=True):
        before, after = (schedule((step + shift) / solver.MAX_ITER) for shift in (-1, 1))
        assert (before, after) == (pytest.approx(10 * factor), pytest.approx(factor))
    warm = solver.WARMUP_ITERS / solver.MAX_ITER
    assert schedule(warm * 0.999) < 1 == schedule(warm * 1.001)


@pytest.mark.parametrize("name", OFFICIAL)
def test_images_are_prepared_as_the_official_ones(name):
    cfg, official = get_config(name), official_yaml(name)
    train, test = cfg.dataloader.train.mapper, cfg.dataloader.test.mapper
    assert tuple(train.augmentations[0].short_edge_length) == official.INPUT.MIN_SIZE_TRAIN
    assert train.augmentations[0].max_size == official.INPUT.MAX_SIZE_TRAIN
    assert test.augmentations[0].short_edge_length == official.INPUT.MIN_SIZE_TEST
    assert train.image_format == test.image_format == official.INPUT.FORMAT
    assert train.use_instance_mask == official.MODEL.MASK_ON
    assert bool(train.get("use_keypoint", False)) == official.MODEL.KEYPOINT_ON
    assert (cfg.dataloader.train.dataset.names,) == official.DATASETS.TRAIN
    assert (cfg.dataloader.test.dataset.names,) == official.DATASETS.TEST
    if official.MODEL.KEYPOINT_ON:
        assert cfg.dataloader.train.dataset.min_keypoints == official.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE


@pytest.mark.parametrize("epochs", [100, 200, 400])
@pytest.mark.parametrize("depth", [50, 101])
def test_lsj_trains_as_the_official_lazy_config(depth, epochs):
    ours = get_config(f"mask_rcnn_r{depth}_fpn_lsj_{epochs}ep")
    official = model_zoo.get_config(f"new_baselines/mask_rcnn_R_{depth}_FPN_{epochs}ep_LSJ.py")
    assert ours.model.backbone.bottom_up.stages.depth == official.model.backbone.bottom_up.stages.depth == depth
    assert ours.train.max_iter == official.train.max_iter
    assert ours.train.amp.enabled is official.train.amp.enabled is True
    assert (ours.optimizer.lr, ours.optimizer.weight_decay) == (official.optimizer.lr, official.optimizer.weight_decay)
    assert ours.dataloader.train.total_batch_size == official.dataloader.train.total_batch_size
    assert ours.dataloader.train.mapper.recompute_boxes is official.dataloader.train.mapper.recompute_boxes is True
    schedules = [instantiate(cfg.lr_multiplier) for cfg in (ours, official)]
    for where in (0.0, 0.001, 0.5, 0.888, 0.889, 0.962, 0.963, 1.0):
        assert schedules[0](where) == schedules[1](where)
    kinds = [
        [type(instantiate(a)).__name__ for a in cfg.dataloader.train.mapper.augmentations] for cfg in (ours, official)
    ]
    assert kinds[0] == kinds[1]


def test_convnext_has_the_parameter_groups_of_its_authors():
    pytest.importorskip("timm")
    cfg = get_config("mask_rcnn_convnext_tiny_fpn_3x")
    cfg.optimizer.params.model = model = our_model("mask_rcnn_convnext_tiny_fpn_3x")
    optimizer = instantiate(cfg.optimizer)
    # stem, stages of 3, 3, 9 and 3 blocks in layers of three blocks, and the rest
    rates = {group["lr"] for group in optimizer.param_groups}
    assert sorted(rates) == pytest.approx([1e-4 * 0.95**distance for distance in range(7, -1, -1)])
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {decay_of[id(p)] for p in model.parameters() if p.ndim == 1} == {0.0}
    assert {decay_of[id(p)] for p in model.parameters() if p.ndim > 1} == {0.05}


@pytest.mark.parametrize("name", ["mask_rcnn_convnext_tiny_fpn_3x", "mask_rcnn_swin_t_fpn_3x"])
def test_a_norm_follows_each_map_as_in_the_authors_detectors(name):
    pytest.importorskip("timm")
    bottom_up = our_model(name).backbone.bottom_up
    channels = {feature: shape.channels for feature, shape in bottom_up.output_shape().items()}
    assert {feature: len(norm.weight) for feature, norm in bottom_up.out_norms.items()} == channels
