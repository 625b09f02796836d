"""CompactRCNN returns the results of Detectron2's GeneralizedRCNN, with RLEs instead of arrays."""

import copy
import json

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator as StockEvaluator
from detectron2.modeling import GeneralizedRCNN
from pycocotools import mask as mask_util

from maskrcnn_ext import COCOEvaluator, CompactRCNN, get_config
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.modeling.compact_rcnn import compact_postprocess
from maskrcnn_ext.ops.rle_masks import RLEMasks


def build(target, config="mask_rcnn_r18_fpn_scratch.py", classes=5):
    cfg = get_config(config)
    cfg.model._target_ = target
    cfg.model.backbone.out_channels = 32
    cfg.model.roi_heads.num_classes = classes
    cfg.model.roi_heads.box_predictor.test_score_thresh = 0.02
    cfg.model.roi_heads.box_predictor.test_topk_per_image = 10
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(40)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(40)
        if model.roi_heads.mask_on:
            model.roi_heads.mask_head.predictor.weight.mul_(400)
    return model.eval()


@pytest.fixture(scope="module")
def models():
    return build(GeneralizedRCNN), build(CompactRCNN)


def inputs():
    rng = np.random.default_rng(0)
    sizes = ((64, 96, 150, 233), (96, 64, 41, 30), (64, 64, 64, 64))
    return [
        {"image": torch.from_numpy(rng.integers(0, 255, (3, h, w), dtype=np.uint8)), "height": height, "width": width}
        for h, w, height, width in sizes
    ]


def test_masks_are_bit_for_bit_those_of_detectron2(models):
    stock, ours = models
    with torch.no_grad():
        expected, found = stock(inputs()), ours(inputs())
    for own, one, image in zip(expected, found, inputs(), strict=True):
        own, one = own["instances"], one["instances"]
        assert one.image_size == own.image_size == (image["height"], image["width"])
        assert len(one) == len(own) > 0
        assert isinstance(one.pred_masks, RLEMasks)
        assert torch.equal(one.pred_masks.to_dense(), own.pred_masks)
        assert own.pred_masks.any()
        encoded = [mask_util.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8)) for mask in own.pred_masks]
        assert one.pred_masks.rles == encoded
        assert torch.equal(one.pred_boxes.tensor, own.pred_boxes.tensor)
        assert torch.equal(one.scores, own.scores)
        assert torch.equal(one.pred_classes, own.pred_classes)
        assert not one.has("number")


def test_without_postprocessing_nothing_differs(models):
    with torch.no_grad():
        expected, found = (model.inference(inputs(), do_postprocess=False) for model in models)
    for own, one in zip(expected, found, strict=True):
        assert one.get_fields().keys() == own.get_fields().keys()
        assert torch.equal(one.pred_masks, own.pred_masks)


def test_results_without_masks_are_unchanged():
    ours = build(CompactRCNN, "faster_rcnn_r18_fpn_scratch.py")
    stock = build(GeneralizedRCNN, "faster_rcnn_r18_fpn_scratch.py")
    with torch.no_grad():
        expected, found = stock(inputs()[:1])[0]["instances"], ours(inputs()[:1])[0]["instances"]
    assert found.get_fields().keys() == expected.get_fields().keys()
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_masks_of_empty_boxes_are_removed(models):
    stock, ours = models
    image = {**inputs()[0], "height": 64, "width": 96}
    with torch.no_grad():
        raw = ours.inference([image], do_postprocess=False)[0]
        # Between two other objects, one that lies outside of the image.
        raw.pred_boxes.tensor[1] = torch.tensor([200.0, 10.0, 220.0, 20.0])
        expected = stock._postprocess([copy.deepcopy(raw)], [image], [(64, 96)])[0]["instances"]
        found = compact_postprocess(raw, 64, 96)
    assert len(found) == len(expected) == len(raw) - 1
    assert torch.equal(found.pred_masks.to_dense(), expected.pred_masks)


def test_no_detections_have_no_masks():
    ours = build(CompactRCNN)
    ours.roi_heads.box_predictor.test_score_thresh = 2.0
    with torch.no_grad():
        found = ours(inputs()[:1])[0]["instances"]
    assert len(found) == len(found.pred_masks) == 0
    assert found.pred_masks.size == (150, 233)


@pytest.mark.parametrize("evaluator", [StockEvaluator, COCOEvaluator])
def test_evaluators_accept_the_masks(models, shapes, tmp_path, evaluator):
    name = f"coco:{shapes}@{shapes.parent / 'images'}"
    ensure_registered(name)
    mapper = SafeMapper(False, augmentations=[], image_format="BGR")
    images = [mapper(record) for record in DatasetCatalog.get(name)[:4]]
    assert MetadataCatalog.get(name).json_file
    results, written = [], []
    for model in models:
        judge = evaluator(name, output_dir=str(tmp_path))
        judge.reset()
        with torch.no_grad():
            for image in images:
                judge.process([image], model([image]))
        results.append(judge.evaluate())
        written.append(json.loads((tmp_path / "coco_instances_results.json").read_text()))
    assert written[0] == written[1]
    assert len(written[0]) > 0
    assert results[0].keys() == {"bbox", "segm"}
    for kind, figures in results[0].items():
        assert results[1][kind] == pytest.approx(figures, nan_ok=True)
