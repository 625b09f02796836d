"""The shared parts of copy-paste and mosaic: bad records, errors, boxes and masks."""

import itertools

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from maskrcnn_ext import InputError
from maskrcnn_ext.data.mapping.augmentation import CopyPasteMapper, MosaicMapper
from maskrcnn_ext.data.mapping.augmentation.mixing import areas_of, move_keypoints, tight_boxes, with_masks
from tests.helpers.mixed_samples import by_name, check_sample, make_sample


def test_a_bad_record_is_not_mixed_in():
    samples = {"a": make_sample([(0, 5, 0, 5)], 50), "bad": None}
    paste_bad = CopyPasteMapper(mapper=by_name(samples), dataset=[{"name": "bad"}], probability=1)
    assert paste_bad({"name": "bad"}) is None
    assert torch.equal(paste_bad({"name": "a"})["image"], samples["a"]["image"])
    mosaic = MosaicMapper(mapper=by_name(samples), dataset=[{"name": "bad"}], probability=1)
    check_sample(mosaic({"name": "a"}))


@pytest.mark.parametrize("kind", [CopyPasteMapper, MosaicMapper])
def test_wrong_arguments_are_errors_of_one_line(kind):
    sample = make_sample([(0, 5, 0, 5)], 50)
    sample["instances"].remove("gt_masks")
    arguments = {"mapper": lambda _: sample, "dataset": [{}], "probability": 1}
    with pytest.raises(InputError, match=r"^a: mixing images needs bit masks.*instance_mask_format=bitmask"):
        kind(**arguments)({})
    with pytest.raises(InputError, match=r"probability is 1\.5, expected a number from 0 to 1"):
        kind(**{**arguments, "probability": 1.5})
    with pytest.raises(InputError, match="the data set it draws from is empty"):
        kind(**{**arguments, "dataset": []})


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


def test_boxes_and_areas_are_those_of_the_pixels():
    masks = torch.rand(6, 9, 12) < torch.tensor([0, 0.01, 0.05, 0.1, 0.5, 1])[:, None, None]
    assert areas_of(masks).tolist() == masks.sum(dim=(1, 2)).tolist()
    for mask, box in zip(masks, tight_boxes(masks).tolist(), strict=True):
        ys, xs = torch.nonzero(mask, as_tuple=True)
        assert box == ([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0] * 4)
    assert tight_boxes(masks[:0]).shape == (0, 4)
    assert areas_of(masks[:0]).shape == (0,)


def test_keypoints_outside_of_the_window_become_unlabelled():
    points = [[[1.0, 2.0, 2.0], [9.0, 2.0, 1.0], [4.0, 4.0, 0.0]]]
    instances = make_sample([(0, 5, 0, 5)], 50, keypoints=points)["instances"]
    move_keypoints(instances, (2, 3), (10, -1), (12, 0, 20, 20))
    assert instances.gt_keypoints.tensor.tolist() == [[[12, 5, 2], [0, 0, 0], [0, 0, 0]]]


def test_samples_without_objects_are_joined():
    empty = make_sample([], 50)["instances"]
    joined = with_masks([empty, empty], torch.zeros(0, 7, 8, dtype=torch.bool))
    assert joined.image_size == (7, 8)
    assert joined.gt_boxes.tensor.shape == (0, 4)
    assert len(joined.gt_masks) == len(joined.gt_classes) == 0
