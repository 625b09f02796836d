"""Translates the keys of a yacs R-CNN config to the keys of a LazyConfig."""

from __future__ import annotations

from typing import Literal

from maskrcnn_ext.config.yacs.reader import Rules, YamlReader
from maskrcnn_ext.errors import InputError

Neck = Literal["fpn", "c4", "dc5"]


def neck_of(yaml: YamlReader) -> Neck:
    """Returns the kind of R-CNN: with a feature pyramid, with a C4 head or with a dilated C5 stage.

    Raises:
        InputError: the config is of another kind.
    """
    backbone, heads = yaml("MODEL.BACKBONE.NAME"), yaml("MODEL.ROI_HEADS.NAME")
    if backbone == "build_resnet_fpn_backbone" and heads in ("StandardROIHeads", "CascadeROIHeads"):
        return "fpn"
    if backbone == "build_resnet_backbone" and heads == "Res5ROIHeads":
        return "c4"
    if (
        backbone == "build_resnet_backbone"
        and heads == "StandardROIHeads"
        and yaml("MODEL.ROI_HEADS.IN_FEATURES") == ["res5"]
    ):
        return "dc5"
    raise InputError(
        f"MODEL.BACKBONE.NAME={backbone} with MODEL.ROI_HEADS.NAME={heads}: expected build_resnet_fpn_backbone with StandardROIHeads or "
        "CascadeROIHeads, or build_resnet_backbone with Res5ROIHeads, or with StandardROIHeads on res5"
    )


def read_rules(yaml: YamlReader, neck: Neck) -> Rules:
    """Returns the values of an equivalent LazyConfig with the same neck and heads.

    Raises:
        InputError: a value of the yacs config has no equivalent; the message names its key.
    """
    rules = Rules(yaml)
    _backbone(rules, neck)
    _proposals(rules)
    _roi_heads(rules, neck)
    _training(rules)
    _data(rules)
    return rules


def _backbone(rules: Rules, neck: Neck) -> None:
    yaml, resnet = rules.yaml, "model.backbone.bottom_up" if neck == "fpn" else "model.backbone"
    depth = yaml("MODEL.RESNETS.DEPTH")
    if depth not in (50, 101, 152):
        raise InputError(f"MODEL.RESNETS.DEPTH={depth}: expected 50, 101 or 152")
    rules.put_all("model", "MODEL", "pixel_mean pixel_std")
    rules.put("model.input_format", "INPUT.FORMAT")
    rules.put("model.vis_period", "VIS_PERIOD")
    rules.put(f"{resnet}.freeze_at", "MODEL.BACKBONE.FREEZE_AT")
    names = (
        "stem.norm out_features stages.depth stages.norm stages.stride_in_1x1 stages.num_groups stages.width_per_group"
    )
    rules.put_all(resnet, "MODEL.RESNETS", f"{names} stages.res5_dilation", STEM_OUT_CHANNELS="stem.out_channels")
    if neck == "fpn":
        rules.put_all("model.backbone", "MODEL.FPN", "in_features out_channels norm fuse_type")
    else:
        yaml.read |= {f"MODEL.FPN.{name}" for name in ("IN_FEATURES", "OUT_CHANNELS", "NORM", "FUSE_TYPE")}


def _stride(yaml: YamlReader, feature: str) -> int:
    dilated = feature == "res5" and yaml("MODEL.RESNETS.RES5_DILATION") == 2
    return int(2 ** int(feature[-1])) // (2 if dilated else 1)


def _proposals(rules: Rules) -> None:
    yaml, rpn, anchors = rules.yaml, "model.proposal_generator", "MODEL.ANCHOR_GENERATOR"
    rules.put_all(f"{rpn}.anchor_generator", anchors, "sizes offset")
    rules.put(
        f"{rpn}.anchor_generator.aspect_ratios", f"{anchors}.ASPECT_RATIOS", make=lambda r: r[0] if len(r) == 1 else r
    )
    rules.put(
        f"{rpn}.anchor_generator.strides",
        "MODEL.RPN.IN_FEATURES",
        make=lambda names: [_stride(yaml, name) for name in names],
    )
    rules.put(
        f"{rpn}.head.num_anchors",
        f"{anchors}.SIZES",
        f"{anchors}.ASPECT_RATIOS",
        make=lambda sizes, ratios: len(sizes[0]) * len(ratios[0]),
    )
    names = "in_features head.conv_dims nms_thresh batch_size_per_image positive_fraction smooth_l1_beta"
    renamed = {"IOU_THRESHOLDS": "anchor_matcher.thresholds", "IOU_LABELS": "anchor_matcher.labels"}
    renamed |= {"BBOX_REG_WEIGHTS": "box2box_transform.weights", "BBOX_REG_LOSS_TYPE": "box_reg_loss_type"}
    renamed |= {"BOUNDARY_THRESH": "anchor_boundary_thresh"}
    rules.put_all(rpn, "MODEL.RPN", names, **renamed)
    for when in ("pre", "post"):
        topk = f"MODEL.RPN.{when.upper()}_NMS_TOPK"
        rules.put(f"{rpn}.{when}_nms_topk", f"{topk}_TRAIN", f"{topk}_TEST")
    rules.put(f"{rpn}.min_box_size", "MODEL.PROPOSAL_GENERATOR.MIN_SIZE")
    rules.put(
        f"{rpn}.loss_weight",
        "MODEL.RPN.LOSS_WEIGHT",
        "MODEL.RPN.BBOX_REG_LOSS_WEIGHT",
        make=lambda both, boxes: {"loss_rpn_cls": both, "loss_rpn_loc": both * boxes},
    )


def _roi_heads(rules: Rules, neck: Neck) -> None:
    yaml, heads = rules.yaml, "model.roi_heads"
    names = "num_classes batch_size_per_image positive_fraction proposal_append_gt"
    in_features = "in_features" if neck == "c4" else "box_in_features"
    rules.put_all(heads, "MODEL.ROI_HEADS", names, IN_FEATURES=in_features)
    _pooler(rules, f"{heads}.pooler" if neck == "c4" else f"{heads}.box_pooler", "MODEL.ROI_BOX_HEAD")
    if yaml("MODEL.ROI_HEADS.NAME") == "CascadeROIHeads":
        _cascade(rules)
    else:
        renamed = {"IOU_THRESHOLDS": "thresholds", "IOU_LABELS": "labels"}
        rules.put_all(f"{heads}.proposal_matcher", "MODEL.ROI_HEADS", "", **renamed)
        _box_predictor(rules, f"{heads}.box_predictor", fc_dim=neck != "c4")
        rules.put(f"{heads}.box_predictor.box2box_transform.weights", "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS")
        yaml.read |= {f"MODEL.ROI_BOX_CASCADE_HEAD.{name}" for name in ("IOUS", "BBOX_REG_WEIGHTS")}
        if neck != "c4":
            _box_head(rules, f"{heads}.box_head")
    if neck == "c4":
        _res5(rules)
    else:
        rules.put(f"{heads}.train_on_pred_boxes", "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES")
    if yaml("MODEL.MASK_ON"):
        _mask_head(rules, neck)
    else:
        yaml.read |= set(_keys_of(yaml, "MODEL.ROI_MASK_HEAD"))
    if yaml("MODEL.KEYPOINT_ON"):
        _keypoint_head(rules)
    else:
        yaml.read |= set(_keys_of(yaml, "MODEL.ROI_KEYPOINT_HEAD"))


def _keys_of(yaml: YamlReader, section: str) -> list[str]:
    return [key for key in yaml.unread() if key.startswith(f"{section}.")]


def _pooler(rules: Rules, key: str, section: str) -> None:
    renamed = {"POOLER_RESOLUTION": "output_size", "POOLER_SAMPLING_RATIO": "sampling_ratio"}
    rules.put_all(key, section, "pooler_type", **renamed)
    rules.put(
        f"{key}.scales",
        "MODEL.ROI_HEADS.IN_FEATURES",
        make=lambda names: [1 / _stride(rules.yaml, name) for name in names],
    )


def _input_size(rules: Rules, head: str, section: str) -> None:
    for side in ("height", "width"):
        rules.put(f"{head}.input_shape.{side}", f"{section}.POOLER_RESOLUTION")


def _box_head(rules: Rules, key: str) -> None:
    section = "MODEL.ROI_BOX_HEAD"
    if rules.yaml(f"{section}.NAME") != "FastRCNNConvFCHead":
        raise InputError(f"{section}.NAME={rules.yaml(f'{section}.NAME')}: expected FastRCNNConvFCHead")
    if rules.yaml(f"{section}.NUM_FC") == 0:
        raise InputError(f"{section}.NUM_FC=0: expected 1 or more")
    rules.put(f"{key}.fc_dims", f"{section}.FC_DIM", f"{section}.NUM_FC", make=lambda dim, number: [dim] * number)
    rules.put(f"{key}.conv_dims", f"{section}.CONV_DIM", f"{section}.NUM_CONV", make=lambda dim, number: [dim] * number)
    rules.put(f"{key}.conv_norm", f"{section}.NORM")
    _input_size(rules, key, section)


def _box_predictor(rules: Rules, key: str, *, fc_dim: bool) -> None:
    section = "MODEL.ROI_BOX_HEAD"
    rules.put_all(key, section, "cls_agnostic_bbox_reg smooth_l1_beta", BBOX_REG_LOSS_TYPE="box_reg_loss_type")
    rules.put(f"{key}.test_score_thresh", "MODEL.ROI_HEADS.SCORE_THRESH_TEST")
    rules.put(f"{key}.test_nms_thresh", "MODEL.ROI_HEADS.NMS_THRESH_TEST")
    rules.put(f"{key}.test_topk_per_image", "TEST.DETECTIONS_PER_IMAGE")
    rules.put(f"{key}.loss_weight", f"{section}.BBOX_REG_LOSS_WEIGHT", make=lambda weight: {"loss_box_reg": weight})
    if fc_dim:
        rules.put(f"{key}.input_shape.channels", f"{section}.FC_DIM")


def _cascade(rules: Rules) -> None:
    section = "MODEL.ROI_BOX_CASCADE_HEAD"
    ious, weights = rules.yaml(f"{section}.IOUS"), rules.yaml(f"{section}.BBOX_REG_WEIGHTS")
    if len(ious) != 3 or len(weights) != 3:
        raise InputError(f"{section} has {len(ious)} IOUS and {len(weights)} BBOX_REG_WEIGHTS: expected 3 stages")
    if rules.yaml("MODEL.ROI_HEADS.IOU_THRESHOLDS") != ious[:1]:
        raise InputError(f"MODEL.ROI_HEADS.IOU_THRESHOLDS: expected [{ious[0]}], the first of {section}.IOUS")
    for stage in range(3):
        _box_head(rules, f"model.roi_heads.box_heads.{stage}")
        _box_predictor(rules, f"model.roi_heads.box_predictors.{stage}", fc_dim=True)
        rules.put(
            f"model.roi_heads.box_predictors.{stage}.box2box_transform.weights",
            f"{section}.BBOX_REG_WEIGHTS",
            make=lambda weights, stage=stage: weights[stage],
        )
        matcher = f"model.roi_heads.proposal_matchers.{stage}"
        rules.put(f"{matcher}.thresholds", f"{section}.IOUS", make=lambda ious, stage=stage: [ious[stage]])
        rules.put(f"{matcher}.labels", "MODEL.ROI_HEADS.IOU_LABELS")


def _res5(rules: Rules) -> None:
    """Adds the values of C4's head, which is the last stage of the ResNet."""
    rules.put_all("model.roi_heads.res5", "MODEL.RESNETS", "norm stride_in_1x1 num_groups")
    rules.put(
        "model.roi_heads.res5.bottleneck_channels",
        "MODEL.RESNETS.NUM_GROUPS",
        "MODEL.RESNETS.WIDTH_PER_GROUP",
        make=lambda groups, width: groups * width * 8,
    )


def _mask_head(rules: Rules, neck: Neck) -> None:
    head, section = "model.roi_heads.mask_head", "MODEL.ROI_MASK_HEAD"
    # The last entry is the deconvolution.
    rules.put(
        f"{head}.conv_dims", f"{section}.CONV_DIM", f"{section}.NUM_CONV", make=lambda dim, number: [dim] * (number + 1)
    )
    rules.put(f"{head}.conv_norm", f"{section}.NORM")
    rules.put(f"{head}.vis_period", "VIS_PERIOD")
    rules.put(
        f"{head}.num_classes",
        f"{section}.CLS_AGNOSTIC_MASK",
        "MODEL.ROI_HEADS.NUM_CLASSES",
        make=lambda agnostic, number: 1 if agnostic else number,
    )
    if neck == "c4":
        rules.yaml.read |= {f"{section}.POOLER_{name}" for name in ("RESOLUTION", "SAMPLING_RATIO", "TYPE")}
        return
    rules.put("model.roi_heads.mask_in_features", "MODEL.ROI_HEADS.IN_FEATURES")
    _pooler(rules, "model.roi_heads.mask_pooler", section)
    _input_size(rules, head, section)


def _keypoint_head(rules: Rules) -> None:
    head, section = "model.roi_heads.keypoint_head", "MODEL.ROI_KEYPOINT_HEAD"
    rules.put("model.roi_heads.keypoint_in_features", "MODEL.ROI_HEADS.IN_FEATURES")
    _pooler(rules, "model.roi_heads.keypoint_pooler", section)
    rules.put_all(head, section, "num_keypoints conv_dims loss_weight")
    _input_size(rules, head, section)
    rules.put(
        f"{head}.loss_normalizer",
        f"{section}.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS",
        f"{section}.NUM_KEYPOINTS",
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
        "MODEL.ROI_HEADS.POSITIVE_FRACTION",
        make=lambda visible, keypoints, batch, positive: "visible" if visible else keypoints * batch * positive,
    )
    rules.put("dataloader.train.dataset.min_keypoints", f"{section}.MIN_KEYPOINTS_PER_IMAGE")


def _training(rules: Rules) -> None:
    """Adds the values of the optimizer, the schedule and `train`."""
    yaml = rules.yaml
    names = "momentum nesterov weight_decay params.weight_decay_norm params.weight_decay_bias params.bias_lr_factor"
    rules.put_all("optimizer", "SOLVER", names, BASE_LR="lr")
    if yaml("SOLVER.BIAS_LR_FACTOR") != 1:
        rules.values["optimizer.params.base_lr"] = "${..lr}"
    rules.put("train.init_checkpoint", "MODEL.WEIGHTS")
    rules.put("train.eval_period", "TEST.EVAL_PERIOD")
    rules.put_all("train", "SOLVER", "max_iter", CHECKPOINT_PERIOD="checkpointer.period")
    rules.put("train.amp.enabled", "SOLVER.AMP.ENABLED")
    for name in ("output_dir", "seed", "cudnn_benchmark"):
        rules.put(f"train.{name}", name.upper())
    if "FLOAT32_PRECISION" in yaml:  # only in Detectron2's main branch
        rules.put("train.float32_precision", "FLOAT32_PRECISION")
    if not yaml.is_default("MODEL.DEVICE"):  # by default CUDA if available
        rules.put("train.device", "MODEL.DEVICE")
    last = yaml("SOLVER.MAX_ITER")
    rules.put("lr_multiplier.warmup_length", "SOLVER.WARMUP_ITERS", make=lambda length: min(length / last, 1.0))
    rules.put_all("lr_multiplier", "SOLVER", "warmup_method warmup_factor")
    if yaml("SOLVER.LR_SCHEDULER_NAME") == "WarmupMultiStepLR":
        steps = [step for step in yaml("SOLVER.STEPS") if step < last]
        gamma = yaml("SOLVER.GAMMA")
        rules.values["lr_multiplier.scheduler.values"] = [gamma**k for k in range(len(steps) + 1)]
        rules.values["lr_multiplier.scheduler.milestones"] = [*steps, last]
    elif yaml("SOLVER.LR_SCHEDULER_NAME") == "WarmupCosineLR":
        yaml.read |= {"SOLVER.STEPS", "SOLVER.GAMMA"}
    else:
        raise InputError(
            f"SOLVER.LR_SCHEDULER_NAME={yaml('SOLVER.LR_SCHEDULER_NAME')}: expected WarmupMultiStepLR or WarmupCosineLR"
        )


def _data(rules: Rules) -> None:
    """Adds the values of the data loaders and the evaluator."""
    yaml, train, test = rules.yaml, "dataloader.train", "dataloader.test"
    for split, source in ((train, "DATASETS.TRAIN"), (test, "DATASETS.TEST")):
        names = yaml(source)
        if not names or (split == test and len(names) > 1):
            raise InputError(
                f"{source}={tuple(names)}: expected one{' or more' if split == train else ''}, as in {source} \"('coco_2017_val',)\""
            )
        rules.values[f"{split}.dataset.names"] = names[0] if len(names) == 1 else names
        rules.put(f"{split}.num_workers", "DATALOADER.NUM_WORKERS")
    rules.put(f"{train}.dataset.filter_empty", "DATALOADER.FILTER_EMPTY_ANNOTATIONS")
    rules.put(f"{train}.aspect_ratio_grouping", "DATALOADER.ASPECT_RATIO_GROUPING")
    rules.put(f"{train}.total_batch_size", "SOLVER.IMS_PER_BATCH")
    names = {"use_instance_mask": "MODEL.MASK_ON", "use_keypoint": "MODEL.KEYPOINT_ON", "image_format": "INPUT.FORMAT"}
    for key, source in (names | {"instance_mask_format": "INPUT.MASK_FORMAT"}).items():
        rules.put(f"{train}.mapper.{key}", source)
    for split, phase in ((train, "TRAIN"), (test, "TEST")):
        rules.put(f"{split}.mapper.augmentations.0.short_edge_length", f"INPUT.MIN_SIZE_{phase}")
        rules.put(f"{split}.mapper.augmentations.0.max_size", f"INPUT.MAX_SIZE_{phase}")
    rules.put(f"{train}.mapper.augmentations.0.sample_style", "INPUT.MIN_SIZE_TRAIN_SAMPLING")
    rules.put("dataloader.evaluator.kpt_oks_sigmas", "TEST.KEYPOINT_OKS_SIGMAS")
