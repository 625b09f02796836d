"""Samples of one colour per object, so that pixels show whether the masks are right after mixing."""

import copy

import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from hypothesis import strategies as st

from maskrcnn_ext.data.mapping.augmentation.mixing import tight_boxes
from maskrcnn_ext.ops.unlabelled import IgnoreRegion, Unlabelled


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


def with_unlabelled(sample, region=None, labelled=None):
    """The sample with an ignore region (y0, y1, x0, x1), and with some classes labelled."""
    mask = torch.zeros(sample["image"].shape[1:], dtype=torch.bool)
    if region is not None:
        y0, y1, x0, x1 = region
        mask[y0:y1, x0:x1] = True
    classes = None if labelled is None else torch.tensor(labelled)
    instances = sample["instances"]
    instances.gt_unlabelled = Unlabelled(len(instances), IgnoreRegion(mask) if region else None, classes)
    return sample


def by_name(samples):
    return lambda record: copy.deepcopy(samples[record["name"]])


def check_sample(sample):
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


RECTANGLES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 9), st.integers(1, 9)), max_size=5
).map(lambda found: [(5 * i, 5 * i + h, x, x + w) for i, (_, h, x, w) in enumerate(found)])
