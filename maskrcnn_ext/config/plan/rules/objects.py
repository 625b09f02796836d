"""Chooses anchors, proposals, detections and the mask head from the sizes and numbers of the objects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.config.plan.choice import Choice, Target
from maskrcnn_ext.config.plan.rules.augmentation import should_paste
from maskrcnn_ext.config.plan.rules.canvas import Canvas
from maskrcnn_ext.config.plan.situation import Situation
from maskrcnn_ext.data.check.anchors import STOCK_RATIOS, STOCK_SIZES, anchor_recall, fit_anchors

_NUM_BOXES = 4000  # that anchors are fitted to
_GAIN = 0.02  # of recall, for which anchors are changed
_LIMIT = 100  # Detectron2's limit of detections
_ROOM = 1.25  # detections for each object of the fullest image
_STEP = 50  # limits are multiples of this
_CROWDED = 0.05  # share of objects from which suppression is relaxed
_NMS = 0.6


def choose_anchors(situation: Situation, canvas: Canvas) -> Choice:
    """Returns the choice of anchors: fitted ones if they find more objects than those of the config."""
    boxes = canvas.boxes(situation.train, situation.val)
    if not len(boxes):
        return Choice("anchors", "left", "no objects to measure")
    boxes = boxes[:: -(-len(boxes) // _NUM_BOXES)]
    sizes, ratios = fit_anchors(boxes)
    before, after = anchor_recall(boxes, STOCK_SIZES, STOCK_RATIOS), anchor_recall(boxes, sizes, ratios)
    if after < before + _GAIN:
        return Choice("anchors", "fits: left", f"Detectron2's reach {before:.0%} of the boxes, fitted ones {after:.0%}")
    generator = "model.proposal_generator.anchor_generator"
    return Choice(
        "anchors",
        f"{', '.join(f'{size:g}' for size in sizes)} pixels, ratios {', '.join(f'{ratio:g}' for ratio in ratios)}",
        f"reach {after:.0%} of the boxes, Detectron2's {before:.0%}",
        {f"{generator}.sizes": [[size] for size in sizes], f"{generator}.aspect_ratios": list(ratios)},
    )


def choose_detections(situation: Situation) -> Choice:
    """Returns the choice of proposals and detections an image, and of their suppression."""
    most, settings = situation.most_objects, {}
    limit = max(_LIMIT, math.ceil(_ROOM * most / _STEP) * _STEP)
    value, reason = f"{limit} an image", f"at most {plural(most, 'object')} an image"
    if limit > _LIMIT:
        settings = {
            "model.roi_heads.box_predictor.test_topk_per_image": limit,
            "dataloader.evaluator.max_dets_per_image": limit,
            "model.proposal_generator.pre_nms_topk": [max(1000, limit), max(1000, 2 * limit)],
            "model.proposal_generator.post_nms_topk": [max(300, limit), 2 * limit],
        }
    else:
        value = f"fits: left at {limit}"
    crowded = max(situation.objects.crowded, situation.val.objects.crowded)
    if crowded > _CROWDED:
        settings["model.roi_heads.box_predictor.test_nms_thresh"] = _NMS
        value += f", suppressed above IoU {_NMS}"
        reason += f"; boxes of {crowded:.0%} overlap by more than 0.5"
    return Choice("detections", value, reason, settings)


def choose_masks(situation: Situation, canvas: Canvas) -> Choice:
    """Returns the choice of the mask head and of the form of the masks."""
    if not situation.has_masks:
        return Choice("masks", "none", "the objects have boxes only")
    boxes = canvas.boxes(situation.train, situation.val)
    side = float(np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))))
    settings: dict[str, Any] = {}
    if not situation.objects.has_polygons_only:
        settings["dataloader.train.mapper.instance_mask_format"] = "bitmask"
    reason = f"objects of {side:.0f} pixels in the input"
    found = situation.objects
    if found.num_drawn:
        reason += f"; {found.touching:.0%} touch another, {found.overlapping:.0%} overlap one, masks fill {found.fill:.0%} of their boxes"
    if situation.objects.outlined < 1:
        # Mixed images need a mask of every object.
        pastes = should_paste(situation)
        reason += "; boxes replace missing outlines" if pastes else "; objects without outlines train no mask"
        if not pastes:
            settings |= {
                "dataloader.train.mapper.missing_masks": "box-only",
                "model.roi_heads.mask_head._target_": Target("maskrcnn_ext.FCNMaskHead"),
            }
    # In the time that a finer head takes, more iterations of this one bring more (projects/small_data).
    return Choice("masks", "FCN head, 28 x 28, cross entropy", reason, settings)
