"""Anchors, detections and masks follow the sizes and numbers of the objects."""

import pytest

from maskrcnn_ext.config.plan.machine import Machine
from maskrcnn_ext.config.plan.rules.canvas import choose_canvas
from maskrcnn_ext.config.plan.rules.objects import choose_anchors, choose_detections, choose_masks
from maskrcnn_ext.config.plan.situation import Situation
from tests.helpers.labelled_images import make_fingerprint

GENERATOR = "model.proposal_generator.anchor_generator"


def situation_of(*args, **kwargs):
    found = make_fingerprint(*args, **kwargs)
    return Situation(found, found, Machine())


def anchors_of(situation):
    return choose_anchors(situation, choose_canvas(situation)[0])


def test_anchors_that_fit_are_left():
    choice = anchors_of(situation_of((64, 128), size=(640, 480)))
    assert choice.value == "fits: left"
    assert choice.settings == {}


def test_small_objects_get_small_anchors():
    choice = anchors_of(situation_of((12, 16, 20), per_image=40))
    assert choice.settings[f"{GENERATOR}.sizes"][0][0] < 32
    assert len(choice.settings[f"{GENERATOR}.sizes"]) == 5
    assert len(choice.settings[f"{GENERATOR}.aspect_ratios"]) == 3


@pytest.mark.parametrize(("most", "limit"), [(12, 100), (80, 100), (81, 150), (375, 500)])
def test_as_many_detections_as_the_fullest_image_needs(most, limit):
    choice = choose_detections(situation_of(per_image=most, num_images=2))
    assert str(limit) in choice.value
    assert choice.settings.get("model.roi_heads.box_predictor.test_topk_per_image", 100) == limit
    assert f"{most} objects" in choice.reason


def test_crowded_boxes_relax_the_suppression():
    choice = choose_detections(situation_of(objects={"crowded": 0.2}))
    assert choice.settings["model.roi_heads.box_predictor.test_nms_thresh"] == 0.6


def test_masks():
    def masks_of(**objects):
        situation = situation_of(objects=objects)
        return choose_masks(situation, choose_canvas(situation)[0])

    assert masks_of().settings == {}
    assert masks_of().reason == "objects of 60 pixels in the input"
    assert masks_of(num_drawn=100, touching=0.3, overlapping=0.1, fill=0.75).reason.endswith(
        "; 30% touch another, 10% overlap one, masks fill 75% of their boxes"
    )
    assert masks_of(has_polygons_only=False).settings == {"dataloader.train.mapper.instance_mask_format": "bitmask"}
    assert masks_of(outlined=0.0).value == "none"
    partly = masks_of(outlined=0.9)
    assert "objects without outlines train no mask" in partly.reason
    assert partly.overrides() == [
        "dataloader.train.mapper.missing_masks=box-only",
        "model.roi_heads.mask_head._target_=maskrcnn_ext.FCNMaskHead",
    ]
    few = masks_of(outlined=0.9, counts=(200,))  # copy-paste needs a mask of each
    assert "boxes replace missing outlines" in few.reason
    assert few.settings == {}
