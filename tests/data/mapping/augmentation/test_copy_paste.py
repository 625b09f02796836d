"""Copy-paste: pixels, masks, boxes and keypoints agree after objects are pasted."""

import copy
import itertools

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError
from maskrcnn_ext.data.mapping.augmentation import CopyPasteMapper
from maskrcnn_ext.data.mapping.augmentation.copy_paste import paste
from tests.helpers.mixed_samples import RECTANGLES, by_name, check_sample, make_sample, with_unlabelled


def test_a_pasted_object_cuts_the_objects_it_covers():
    sample = make_sample([(2, 10, 2, 10), (12, 14, 12, 16), (0, 2, 20, 30)], 50)
    other = make_sample([(4, 16, 6, 18)], 100)
    before = copy.deepcopy(sample)
    done = paste(sample, other, [0], [(0, 0)], min_visible=0.1)
    check_sample(done)
    assert done["instances"].gt_classes.tolist() == [50, 52, 100], "the second one is covered altogether"
    assert done["instances"].gt_masks.tensor[0].sum() == 64 - 6 * 4
    assert done["instances"].gt_boxes.tensor.tolist() == [[2, 2, 10, 10], [20, 0, 30, 2], [6, 4, 18, 16]]
    assert (done["image"][:, 4:16, 6:18] == 101).all()
    assert torch.equal(sample["image"], before["image"])
    assert torch.equal(sample["instances"].gt_masks.tensor, before["instances"].gt_masks.tensor)


def test_an_object_with_too_little_left_is_dropped():
    sample = make_sample([(0, 10, 0, 10)], 50)
    other = make_sample([(0, 10, 0, 9)], 100)
    classes = {
        share: paste(sample, other, [0], [(0, 0)], min_visible=share)["instances"].gt_classes.tolist()
        for share in (0.1, 0.11)
    }
    assert classes == {0.1: [50, 100], 0.11: [100]}


def test_an_object_cut_by_the_edge_leaves_either_pixels_and_mask_or_nothing():
    sample, other = make_sample([], 50), make_sample([(0, 10, 0, 10)], 100, size=(60, 60))
    half, sliver, away = (
        paste(sample, other, [0], [offset], min_visible=0.2) for offset in ((25, 0), (29, 0), (-40, 3))
    )
    assert half["instances"].gt_boxes.tensor.tolist() == [[25, 0, 30, 10]]
    check_sample(half)
    for done in (sliver, away):
        assert len(done["instances"]) == 0
        assert torch.equal(done["image"], sample["image"])


def test_covered_keypoints_are_labelled_but_not_visible():
    points = [[[3.0, 3.0, 2.0], [8.0, 8.0, 2.0], [9.0, 9.0, 1.0], [0.0, 0.0, 0.0]]]
    sample = make_sample([(2, 10, 2, 10)], 50, keypoints=points)
    other = make_sample(
        [(5, 9, 5, 29)], 100, keypoints=[[[6.0, 6.0, 2.0], [28.0, 7.0, 2.0], [7.0, 7.0, 2.0], [0, 0, 0]]]
    )
    done = paste(sample, other, [0], [(2, 1)], min_visible=0.1)["instances"]
    assert done.gt_keypoints.tensor[0].tolist() == [[3, 3, 2], [8, 8, 1], [9, 9, 1], [0, 0, 0]]
    # 28 + 2 is the image's edge, and still in it.
    assert done.gt_keypoints.tensor[1].tolist() == [[8, 7, 2], [30, 8, 2], [9, 8, 2], [0, 0, 0]]
    assert sample["instances"].gt_keypoints.tensor[0, 1, 2] == 2


@settings(max_examples=40, deadline=None)
@given(RECTANGLES, RECTANGLES.filter(len), st.integers(0, 1000), st.sampled_from(["scene", "instance"]))
def test_pixels_and_masks_agree_after_any_paste(own, theirs, seed, level):
    samples = {
        "a": make_sample(own, 50, size=(25, 20)),
        "b": make_sample(theirs, 100, size=(31, 18)),
    }
    mapper = CopyPasteMapper(mapper=by_name(samples), dataset=[{"name": "b"}], probability=1, level=level)
    np.random.seed(seed)
    done = mapper({"name": "a"})
    check_sample(done)
    assert len(done["instances"]) <= len(own) + len(theirs)
    np.random.seed(seed)
    assert torch.equal(mapper({"name": "a"})["image"], done["image"])


def test_limits_levels_and_probability():
    theirs = [(0, 3, 0, 3), (5, 8, 5, 8), (10, 13, 10, 13), (15, 18, 15, 18)]
    samples = {"a": make_sample([], 50), "b": make_sample(theirs, 100), "c": make_sample([], 150)}

    def counts(names="b", **arguments):
        mapper = CopyPasteMapper(mapper=by_name(samples), dataset=[{"name": name} for name in names], **arguments)
        return [mapper({"name": "a"}) for _ in range(30)]

    np.random.seed(0)
    assert {len(done["instances"]) for done in counts(probability=1)} == {1, 2, 3, 4}
    assert {len(done["instances"]) for done in counts(probability=1, max_instances=2)} == {1, 2}
    assert {len(done["instances"]) for done in counts(probability=0)} == {0}
    assert {len(done["instances"]) for done in counts("c", probability=1)} == {0}
    assert 5 <= sum(len(done["instances"]) > 0 for done in counts(probability=0.5)) <= 25
    for done in counts(probability=1):
        assert all(
            tuple(box) in {(a, a, a + 3, a + 3) for a in (0, 5, 10, 15)}
            for box in done["instances"].gt_boxes.tensor.tolist()
        )
    places = {tuple(done["instances"].gt_boxes.tensor[0].tolist()) for done in counts(probability=1, level="instance")}
    assert len(places) > 15
    assert all(x0 >= 0 and y0 >= 0 and x1 <= 30 and y1 <= 20 for x0, y0, x1, y1 in places)


def test_a_wrong_level_or_number_is_an_error():
    arguments = {"mapper": lambda _: None, "dataset": [{}]}
    with pytest.raises(InputError, match="level is 'all', expected 'scene' or 'instance'"):
        CopyPasteMapper(**arguments, level="all")
    with pytest.raises(InputError, match="max_instances is 0"):
        CopyPasteMapper(**arguments, max_instances=0)


def test_overrides_on_the_command_line_paste(training, tmp_path):
    overrides = [
        "dataloader.train._target_=maskrcnn_ext.data.mapping.augmentation.build_train_loader",
        "dataloader.train.copy_paste.probability=1.0",
        "dataloader.train.mosaic={probability: 0.0}",
        "dataloader.train.seed=3",
    ]
    plain = instantiate(training.dataloader.train)
    cfg = LazyConfig.apply_overrides(training, overrides)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    loader = instantiate(LazyConfig.load(str(tmp_path / "config.yaml")).dataloader.train)
    counts = [sum(len(sample["instances"]) for (sample,) in itertools.islice(found, 12)) for found in (plain, loader)]
    assert counts[1] > counts[0] + 6
    cfg.dataloader.train.copy_paste.probabilty = 1
    with pytest.raises(InputError, match=r"dataloader\.train\.copy_paste: .*probabilty"):
        instantiate(cfg.dataloader.train)


def test_objects_without_an_outline_are_not_pasted():
    seen = []

    def mapper(record):
        seen.append(record)
        return make_sample([(2, 6, 2, 6)] * len(record["annotations"]), 50)

    records = [{"annotations": [{"segmentation": [[1, 1, 5, 1, 5, 5]]}, {"bbox": [1, 1, 5, 5]}, {"segmentation": []}]}]
    mixed = CopyPasteMapper(mapper=mapper, dataset=records, probability=1)({"annotations": []})
    assert [len(record["annotations"]) for record in seen] == [0, 1]
    assert len(mixed["instances"]) == 1
    assert len(records[0]["annotations"]) == 3, "the records of the data set stay as they are"


def test_objects_without_mask_cannot_be_mixed():
    sample = make_sample([(2, 6, 2, 6)], 50)
    sample["instances"].gt_has_mask = torch.tensor([False])
    with pytest.raises(
        InputError, match=r"a: mixing images needs masks, not boxes or points: set .*missing_masks=box or drop"
    ):
        paste(sample, sample, [0], [(0, 0)], min_visible=0.1)


def test_a_pasted_object_hides_the_ignore_region_below_it():
    sample = with_unlabelled(make_sample([(2, 6, 2, 6)], 50), region=(0, 20, 10, 30), labelled=[0, 1])
    other = with_unlabelled(make_sample([(4, 16, 6, 18)], 100), region=(0, 4, 0, 30), labelled=[1])
    done = paste(sample, other, [0], [(0, 0)], min_visible=0.1)["instances"]
    expected = torch.zeros(20, 30, dtype=torch.bool)
    expected[:, 10:] = True
    expected[4:16, 6:18] = False
    assert len(done) == len(done.gt_unlabelled) == 2
    assert torch.equal(done.gt_unlabelled.region.mask, expected)
    assert done.gt_unlabelled.labelled_classes.tolist() == [0, 1], "those of the image that shows the background"
    assert sample["instances"].gt_unlabelled.region.mask.sum() == 400
    plain = paste(make_sample([(2, 6, 2, 6)], 50), other, [0], [(0, 0)], min_visible=0.1)["instances"]
    assert not plain.has("gt_unlabelled")
