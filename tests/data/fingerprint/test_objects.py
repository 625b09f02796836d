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


def test_boxes_that_overlap_a_box_of_their_class_are_crowded():
    def crowded(*images):
        return measure_objects(data_of(*images)).crowded

    assert crowded([square(0, 0, 10), square(10, 0, 10)]) == 0
    assert crowded([square(0, 0, 10), square(1, 1, 10), square(60, 60, 10)]) == pytest.approx(2 / 3)
    assert crowded([square(0, 0, 10), square(1, 1, 10, 1)]) == 0
    assert crowded([square(0, 0, 10), square(1, 1, 10, crowd=True)]) == 0
    assert crowded([], [square(0, 0, 10)]) == 0
    assert crowded([square(i % 100, i // 100, 9) for i in range(1000)], [square(0, 0, 10)]) > 0.99


def test_large_images_count_as_crowded_too():
    objects = [Annotation(0, (x, 0, x + 1000, 1000)) for x in (0, 100, 3000)]
    found = measure_objects(DataSet(["ship"], [ImageRecord("a.png", 1, 4000, 4000, objects)]))
    assert found.crowded == pytest.approx(2 / 3)


def test_the_shorter_sides_of_boxes():
    found = measure_objects(data_of([Annotation(0, (0, 0, 100, 4)), Annotation(0, (0, 0, 6, 90))]))
    assert (found.narrow_side(0.0), found.narrow_side(1.0)) == (4, 6)


def test_rles():
    rle = with_text_counts(encode_mask(np.ones((100, 120), bool)))
    assert not measure_objects(data_of([Annotation(0, (10, 10, 20, 20), rle)])).has_polygons_only


def test_many_boxes_are_sampled_evenly():
    found = measure_objects(data_of(*[[square(0, 0, 1 + i % 50)] for i in range(25_000)]))
    assert len(found.boxes) <= 10_000
    assert found.side(0.5) == pytest.approx(25, abs=1)


def test_no_objects_and_no_keypoints():
    found = measure_objects(DataSet(["cat"], [ImageRecord("a.png", 1, 10, 10)], keypoints=["nose"]))
    assert (found.total, found.most, found.side(0.5), found.keypoints) == (0, 0, 0, ())
    assert (found.narrow_side(0.5), found.mean_labelled, found.crowded) == (0, 0, 0)
