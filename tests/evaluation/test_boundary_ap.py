"""Boundary AP: the band against a distance transform, the AP against COCOeval and by hand."""

import contextlib
import io

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn_ext.evaluation.boundary_ap import boundary_ap
from maskrcnn_ext.ops.rle import rle_boundary


def disc(radius, center=(60, 60), size=(120, 160)):
    return cv2.circle(np.zeros(size, np.uint8), center, radius, 1, -1)


def encode(mask):
    return rle.encode(np.asfortranarray(mask))


def dataset(masks):
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(m.sum()), "segmentation": encode(m)}
        for i, m in enumerate(masks)
    ]
    for annotation in annotations:
        annotation["bbox"] = rle.toBbox(annotation["segmentation"]).tolist()
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "height": masks[0].shape[0], "width": masks[0].shape[1]}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "disc"}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def results(masks):
    scores = np.linspace(1, 0.5, len(masks))
    return [
        {"image_id": 1, "category_id": 1, "score": float(s), "segmentation": encode(m)}
        for s, m in zip(scores, masks, strict=True)
    ]


def mask_ap(coco, predictions):
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(coco, coco.loadRes(predictions), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats[0] * 100


def test_perfect_masks_have_100_and_none_have_0():
    masks = [disc(20), disc(15, (120, 40))]
    assert boundary_ap(dataset(masks), results(masks)) == pytest.approx({"AP": 100.0, "AP50": 100.0, "AP75": 100.0})
    assert boundary_ap(dataset(masks), [])["AP"] == 0.0


def test_a_loose_outline_costs_boundary_ap_and_not_mask_ap():
    coco = dataset([disc(50)])
    mask, boundary = disc(50), disc(48)
    bands = [rle.decode(rle_boundary(encode(m))).astype(bool) for m in (mask, boundary)]
    band_iou = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    thresholds = np.linspace(0.5, 0.95, 10)
    assert mask_ap(coco, results([disc(48)])) == pytest.approx((thresholds <= boundary.sum() / mask.sum()).mean() * 100)
    assert boundary_ap(coco, results([disc(48)]))["AP"] == pytest.approx((thresholds <= band_iou).mean() * 100)
    assert boundary_ap(coco, results([disc(48)]))["AP"] < mask_ap(coco, results([disc(48)]))


def test_it_falls_as_masks_grow():
    size = (600, 800)  # the band is 20 pixels wide
    truth = dataset([disc(120, (200, 300), size), disc(90, (600, 200), size)])
    masks = [rle.decode(found["segmentation"]) for found in truth.anns.values()]
    values = []
    for pixels in (0, 1, 2, 4):
        grown = [cv2.dilate(mask, np.ones((3, 3), np.uint8), iterations=pixels) for mask in masks]
        values.append(boundary_ap(truth, results(grown))["AP"])
    assert values[0] == pytest.approx(100)
    assert values == sorted(set(values), reverse=True)
