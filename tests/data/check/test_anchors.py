"""Suggested anchors: known sizes are found again, recall equals that of Detectron2's anchors, a config accepts the overrides."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, pairwise_iou

from maskrcnn_ext import get_config
from maskrcnn_ext.data.check import view_dataset
from maskrcnn_ext.data.check.anchors import STOCK_RATIOS, STOCK_SIZES, STRIDES, anchor_recall, suggest_anchors


def data_set(sizes, ratios=(1.0,), *, image=(1024, 1024), count=300, seed=0, crowd=0):
    """A set whose objects have these square roots of areas and these ratios of height to width, in (width, height) images."""
    rng = np.random.default_rng(seed)
    annotations = []
    for number in range(count):
        size, ratio = sizes[number % len(sizes)], ratios[number // len(sizes) % len(ratios)]
        w, h = size / ratio**0.5, size * ratio**0.5
        x, y = rng.uniform(0, image[0] - w), rng.uniform(0, image[1] - h)
        box = [x, y, w, h]
        annotations.append({"id": number, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": crowd})
    images = [{"id": 1, "file_name": "a.png", "width": image[0], "height": image[1]}]
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    return view_dataset(data, Path(), "set")


def test_known_sizes_and_ratios_are_found():
    advice = suggest_anchors(data_set((40, 90, 160, 280, 450), (0.25, 0.6, 1.5), image=(1280, 1280), count=1500))
    assert (advice.short_edge, advice.max_size) == (1280, 1280), "large objects: the images stay as they are"
    np.testing.assert_allclose(advice.sizes, (40, 90, 160, 280, 450), rtol=0.1)
    np.testing.assert_allclose(advice.ratios, (0.25, 0.6, 1.5), rtol=0.05)
    assert advice.recall > 0.99
    assert advice.recall_stock < 0.96, "0.25 is too flat for the stock ratios"
    assert advice.small == 0


def test_sizes_grow_and_fit_their_grid():
    advice = suggest_anchors(data_set((45,), (3.0,), image=(1000, 1000)))
    assert list(advice.sizes) == sorted(advice.sizes)
    assert all(size >= 1.5 * stride for size, stride in zip(advice.sizes, STRIDES, strict=True))
    assert advice.sizes[0] == pytest.approx(45, abs=1), "many small objects: the finest grid has their size"
    assert advice.recall > advice.recall_stock
    assert advice.ratios == (2.4, 3.0, 3.8), "no anchor twice, though all objects have one ratio"


def test_small_objects_enlarge_the_images_and_large_images_shrink():
    small = suggest_anchors(data_set((16.5,), image=(256, 192)))
    assert (small.short_edge, small.max_size) == (384, 512), "twice"
    assert small.small < 0.05
    tiny = suggest_anchors(data_set((4,), image=(256, 192)))
    assert tiny.short_edge == 3 * 192, "not more than three times"
    assert tiny.small == 1
    large = suggest_anchors(data_set((700,), image=(4000, 2000)))
    assert large.short_edge == 672
    assert large.max_size == 1344


def test_stock_anchors_stay_where_they_are_as_good():
    view = data_set(STOCK_SIZES, STOCK_RATIOS, image=(1333, 1333), count=600)
    advice = suggest_anchors(view)
    assert advice.recall >= advice.recall_stock > 0.95
    assert advice.recall - advice.recall_stock < 0.05


def test_recall_is_that_of_detectron2s_anchors():
    """Every anchor of every level of a 512 x 512 input, by Detectron2 itself."""
    rng = np.random.default_rng(1)
    centres, sides = rng.uniform(100, 412, (150, 2)), np.exp(rng.uniform(np.log(6), np.log(150), (150, 2)))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    sizes, ratios = (10.0, 22.0, 50.0, 90.0, 140.0), (0.6, 1.0, 1.8)
    generator = get_config("mask_rcnn_r50_fpn_1x").model.proposal_generator.anchor_generator
    generator.update(sizes=[[size] for size in sizes], aspect_ratios=list(ratios))
    anchors = instantiate(generator)([torch.zeros(1, 1, 512 // stride, 512 // stride) for stride in STRIDES])
    best = torch.stack([pairwise_iou(Boxes(torch.tensor(boxes).float()), level).max(dim=1).values for level in anchors])
    expected = float((best.max(dim=0).values > 0.5).float().mean())
    assert 0.3 < expected < 0.95
    assert anchor_recall(boxes, sizes, ratios) == pytest.approx(expected)


def test_the_override_lines_are_taken_by_a_config():
    advice = suggest_anchors(data_set((20, 50, 130), (0.4, 1.3), image=(640, 480)))
    cfg = get_config("mask_rcnn_r50_fpn_1x")
    num_anchors = cfg.model.proposal_generator.head.num_anchors
    LazyConfig.apply_overrides(cfg, [*advice.anchor_overrides.split(), *advice.input_overrides.split()])
    generator = instantiate(cfg.model.proposal_generator.anchor_generator)
    assert generator.num_anchors == [num_anchors] * 5, "the head's shape stays"
    areas = [float((cell[:, 2:] - cell[:, :2]).prod(dim=1)[0]) for cell in generator.cell_anchors]
    np.testing.assert_allclose(np.sqrt(areas), advice.sizes, rtol=1e-4)
    resize = instantiate(cfg.dataloader.test.mapper.augmentations[0])
    assert resize.max_size == advice.max_size
    assert list(cfg.dataloader.train.mapper.augmentations[0].short_edge_length) == [advice.short_edge]


def test_nothing_to_advise_without_boxes():
    assert suggest_anchors(data_set((20,), count=0)) is None
    assert suggest_anchors(data_set((20,), crowd=1)) is None
    assert suggest_anchors(data_set((20,), count=1)).recall == 1


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    "folder", ["balloon", "nuclei_dsb2018", "kudzu_bugs", "coco_open", "nuclei_stardist", "medical_spine_nifti"]
)
def test_advice_for_real_sets_is_never_worse_than_the_defaults(real_data, folder, split):
    from maskrcnn_ext.data.check.source import find

    advice = suggest_anchors(view_dataset(*find(str(real_data / folder / f"instances_{split}.json"))))
    assert advice.recall >= max(advice.recall_stock, advice.recall_stock_input - 0.01)
    assert advice.recall > 0.83
    assert all(later > 1.2 * ratio for ratio, later in itertools.pairwise(advice.ratios))
