"""Points of objects: positions, labels, and the objects that keep their masks."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, annotation_of_mask
from maskrcnn_ext.data.tools.points import make_points


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_points_are_inside_the_box_with_the_labels_of_the_mask(seed, count):
    mask = np.random.default_rng(seed).random((9, 13)) > 0.6
    mask[3, 4] = True
    crowd, boxed = annotation_of_mask(mask, 0, crowd=True), Annotation(0, (1, 1, 5, 5))
    data = DataSet(["a"], [ImageRecord("a.png", 1, 9, 13, [annotation_of_mask(mask, 0), crowd, boxed])])
    pointed = make_points(data, count, seed=seed)
    found, *others = pointed.images[0].annotations
    assert others == [crowd, boxed]
    assert found.segmentation is None
    points = np.array(found.points).reshape(-1, 3)
    assert len(points) == count
    x0, y0, x1, y1 = found.box
    for x, y, label in points:
        assert x0 <= x <= x1
        assert y0 <= y <= y1
        assert label == mask[int(y), int(x)]
    assert make_points(data, count, seed=seed).images == pointed.images
    assert np.array_equal(mask_util.decode(data.images[0].annotations[0].segmentation), mask), "not changed"


def test_the_whole_box_is_sampled():
    mask = np.zeros((20, 30), bool)
    mask[5:15, 10:20] = True
    data = DataSet(["a"], [ImageRecord("a.png", 1, 20, 30, [annotation_of_mask(mask, 0)])])
    points = np.array(make_points(data, 2000).images[0].annotations[0].points).reshape(-1, 3)
    assert len(np.unique(points[:, :2], axis=0)) == 100, "every pixel"
    assert points[:, 2].all()


def test_what_cannot_be_done():
    data = DataSet(["a"], [ImageRecord("a.png", 1, 9, 9, [Annotation(0, (1, 1, 5, 5))])])
    with pytest.raises(InputError, match="no object has a mask"):
        make_points(data, 3)
    with pytest.raises(InputError, match="--count 0: expected 1 or more"):
        make_points(data, 0)
