"""The figures of objects equal counts by hand."""

import numpy as np
import pytest

from maskrcnn_ext.data.fingerprint.objects import measure_objects
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.ops.rle import encode_mask, with_text_counts


def square(x, y, side, category=0, **rest):
    outline = [[x, y, x + side, y, x + side, y + side, x, y + side]]
    return Annotation(category, (x, y, x + side, y + side), outline, **rest)


def data_of(*images, classes=("cat", "dog")):
    records = [ImageRecord(f"{i}.png", i, 100, 120, list(objects)) for i, objects in enumerate(images)]
    return DataSet(list(classes), records)


def test_counts_sizes_and_crowds():
    found = measure_objects(
        data_of([square(0, 0, 10), square(20, 0, 30, 1)], [square(5, 5, 20), square(0, 0, 9, crowd=True)], [])
    )
    assert found.counts == (2, 1)
    assert found.images_with == (2, 1)
    assert found.per_image == (2, 1, 0)
    assert (found.total, found.most, found.num_crowds) == (3, 2, 1)
    assert sorted(found.sides.tolist()) == [10, 20, 30]
    assert found.image_sizes.tolist() == [[120, 100]] * 3
    assert found.outlined == 1
    assert found.has_polygons_only


def test_boxes_are_cut_at_the_image_and_empty_ones_left_out():
    outside = Annotation(0, (200, 200, 210, 210))
    found = measure_objects(data_of([Annotation(0, (-10, 90, 20, 130)), outside]))
    assert found.boxes.tolist() == [[0, 90, 20, 100]]
    assert found.total == 2
    assert found.outlined == 0


def test_overlapping_touching_and_crowded():
    apart, touching = [square(0, 0, 10), square(50, 50, 10)], [square(0, 0, 10), square(10, 0, 10)]
    assert measure_objects(data_of(apart)).touching == 0
    found = measure_objects(data_of(touching))
    assert (found.touching, found.overlapping, found.crowded) == (1, 0, 0)
    found = measure_objects(data_of([square(0, 0, 10), square(1, 1, 10), square(60, 60, 10)]))
    assert found.touching == found.overlapping == found.crowded == pytest.approx(2 / 3)
    other_class = measure_objects(data_of([square(0, 0, 10), square(1, 1, 10, 1)]))
    assert (other_class.overlapping, other_class.crowded) == (1, 0)


def test_fill_and_rles():
    mask = np.zeros((100, 120), bool)
    mask[10:20, 10:20] = np.tri(10, dtype=bool)
    rle = with_text_counts(encode_mask(mask))
    found = measure_objects(data_of([Annotation(0, (10, 10, 20, 20), rle)]))
    assert found.fill == pytest.approx(0.55)
    assert not found.has_polygons_only


def test_many_boxes_are_sampled_evenly():
    found = measure_objects(data_of(*[[square(0, 0, 1 + i % 50)] for i in range(25_000)]))
    assert len(found.boxes) <= 10_000
    assert found.side(0.5) == pytest.approx(25, abs=1)


def test_no_objects_and_no_keypoints():
    found = measure_objects(DataSet(["cat"], [ImageRecord("a.png", 1, 10, 10)], keypoints=["nose"]))
    assert (found.total, found.most, found.side(0.5), found.keypoints) == (0, 0, 0, ())
