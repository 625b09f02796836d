"""Copy-paste and mosaic: what is shown is what is annotated."""

import copy
import itertools

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.data.mapping.augmentation import CopyPasteMapper, MosaicMapper
from maskrcnn_ext.data.mapping.augmentation.copy_paste import paste
from maskrcnn_ext.data.mapping.augmentation.mixing import tight_boxes


def make_sample(masks, color, *, size=(20, 30), keypoints=None, name="a"):
    """An image of one colour, whose objects are given as (y0, y1, x0, x1) and have the colours after it."""
    image = torch.full((3, *size), color, dtype=torch.uint8)
    instances = Instances(size)
    tensor = torch.zeros(len(masks), *size, dtype=torch.bool)
    for index, (y0, y1, x0, x1) in enumerate(masks):
        tensor[index, y0:y1, x0:x1] = True
        image[:, tensor[index]] = color + 1 + index
    instances.gt_boxes = Boxes(tight_boxes(tensor))
    instances.gt_classes = torch.arange(len(masks)) + color
    if masks:  # Detectron2 leaves them out otherwise
        instances.gt_masks = BitMasks(tensor)
        if keypoints is not None:
            instances.gt_keypoints = Keypoints(torch.tensor(keypoints, dtype=torch.float32))
    return {"file_name": name, "image": image, "instances": instances}


def by_name(samples):
    return lambda record: copy.deepcopy(samples[record["name"]])


def check(sample):
    """Every mask shows its object's colour, boxes are tight, nothing is empty and nothing is covered twice."""
    instances = sample["instances"]
    masks = instances.gt_masks.tensor if len(instances) else torch.zeros(0, *sample["image"].shape[1:])
    assert instances.image_size == tuple(sample["image"].shape[1:])
    assert torch.equal(instances.gt_boxes.tensor, tight_boxes(masks))
    assert (masks.sum(0) <= 1).all()
    for category, mask in zip(instances.gt_classes.tolist(), masks, strict=True):
        assert mask.any()
        assert len(sample["image"][0][mask].unique()) == 1
        assert category // 50 == int(sample["image"][0][mask][0]) // 50, "the class goes with the pixels"


def test_a_pasted_object_cuts_what_it_covers():
    sample = make_sample([(2, 10, 2, 10), (12, 14, 12, 16), (0, 2, 20, 30)], 50)
    other = make_sample([(4, 16, 6, 18)], 100)
    before = copy.deepcopy(sample)
    done = paste(sample, other, [0], [(0, 0)], min_visible=0.1)
    check(done)
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
    check(half)
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


RECTANGLES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 9), st.integers(1, 9)), max_size=5
).map(lambda found: [(5 * i, 5 * i + h, x, x + w) for i, (_, h, x, w) in enumerate(found)])


@settings(max_examples=40, deadline=None)
@given(RECTANGLES, RECTANGLES.filter(len), st.integers(0, 1000), st.sampled_from(["scene", "instance"]))
def test_whatever_is_pasted_pixels_and_masks_agree(own, theirs, seed, level):
    samples = {
        "a": make_sample(own, 50, size=(25, 20)),
        "b": make_sample(theirs, 100, size=(31, 18)),
    }
    mapper = CopyPasteMapper(mapper=by_name(samples), dataset=[{"name": "b"}], probability=1, level=level)
    np.random.seed(seed)
    done = mapper({"name": "a"})
    check(done)
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


def test_what_cannot_be_mapped_is_left_out():
    samples = {"a": make_sample([(0, 5, 0, 5)], 50), "bad": None}
    paste_bad = CopyPasteMapper(mapper=by_name(samples), dataset=[{"name": "bad"}], probability=1)
    assert paste_bad({"name": "bad"}) is None
    assert torch.equal(paste_bad({"name": "a"})["image"], samples["a"]["image"])
    mosaic = MosaicMapper(mapper=by_name(samples), dataset=[{"name": "bad"}], probability=1)
    check(mosaic({"name": "a"}))


@pytest.mark.parametrize("kind", [CopyPasteMapper, MosaicMapper])
def test_mistakes_are_told_in_one_line(kind):
    sample = make_sample([(0, 5, 0, 5)], 50)
    sample["instances"].remove("gt_masks")
    arguments = {"mapper": lambda _: sample, "dataset": [{}], "probability": 1}
    with pytest.raises(InputError, match=r"^a: mixing images needs bit masks.*instance_mask_format=bitmask"):
        kind(**arguments)({})
    with pytest.raises(InputError, match=r"probability is 1\.5, expected a number from 0 to 1"):
        kind(**{**arguments, "probability": 1.5})
    with pytest.raises(InputError, match="the data set it draws from is empty"):
        kind(**{**arguments, "dataset": []})


def test_mistakes_of_their_own():
    arguments = {"mapper": lambda _: None, "dataset": [{}]}
    with pytest.raises(InputError, match="level is 'all', expected 'scene' or 'instance'"):
        CopyPasteMapper(**arguments, level="all")
    with pytest.raises(InputError, match="max_instances is 0"):
        CopyPasteMapper(**arguments, max_instances=0)
    with pytest.raises(InputError, match="center is"):
        MosaicMapper(**arguments, center=(0.7, 0.3))


@settings(max_examples=25, deadline=None)
@given(RECTANGLES, RECTANGLES, st.integers(0, 1000))
def test_a_mosaic_shows_parts_of_four_images(own, theirs, seed):
    samples = {"a": make_sample(own, 50, size=(25, 20)), "b": make_sample(theirs, 100, size=(31, 44))}
    # Interpolation mixes colours at edges: images of one colour show the tiles.
    for sample in samples.values():
        sample["image"][:] = sample["image"][0, -1, -1] // 50 * 50 + 5
    mapper = MosaicMapper(mapper=by_name(samples), dataset=[{"name": "b"}], probability=1)
    np.random.seed(seed)
    done = mapper({"name": "a"})
    check(done)
    assert done["image"].shape == (3, 25, 20)
    assert done["image"].unique().tolist() == [55, 105], "no pixel is left without an image"
    own_tile = done["image"][0] == 55
    assert 0.3 * 0.3 * 500 * 0.8 < own_tile.sum() < 0.7 * 0.7 * 500 * 1.2


def test_keypoints_of_a_mosaic_follow_their_objects():
    sample = make_sample([(0, 20, 0, 30)], 50, keypoints=[[[15.0, 10.0, 2.0], [0.0, 0.0, 1.0]]])
    mapper = MosaicMapper(mapper=lambda _: copy.deepcopy(sample), dataset=[{}], probability=1, center=(0.5, 0.5))
    np.random.seed(0)
    points = mapper({})["instances"].gt_keypoints.tensor
    assert points[:, 0].tolist() == [[7.5, 5, 2], [22.5, 5, 2], [7.5, 15, 2], [22.5, 15, 2]]


@pytest.fixture
def training(people):
    cfg = get_config("keypoint_rcnn_r18_fpn_scratch.py").copy()
    cfg.dataloader.train.dataset.names = people
    cfg.dataloader.train.mapper.use_instance_mask = True
    cfg.dataloader.train.mapper.instance_mask_format = "bitmask"
    cfg.dataloader.train.total_batch_size = 1
    cfg.dataloader.train.num_workers = 0
    return cfg


def test_box_and_mask_of_50_seeds_agree(training):
    mapper = training.dataloader.train.mapper
    mapper.augmentations = mapper.augmentations[1:]  # without the resize, which takes time
    training.dataloader.train.mapper = L(MosaicMapper)(
        mapper=L(CopyPasteMapper)(mapper=mapper, dataset="${...dataset}", probability=1.0, level="instance"),
        dataset="${..dataset}",
        probability=0.3,
    )
    training.dataloader.train.dataset.min_keypoints = 0
    loader = instantiate(training.dataloader.train)
    for (sample,) in itertools.islice(loader, 50):
        instances = sample["instances"]
        assert len(instances) == len(instances.gt_keypoints) >= 1
        assert torch.equal(instances.gt_boxes.tensor, tight_boxes(instances.gt_masks.tensor))
        assert (instances.gt_masks.tensor.sum(0) <= 4).all()


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
