"""Merged data sets: classes of all, images of several sets once, and which classes each image labels."""

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.registry.class_map import ClassMap
from maskrcnn_ext.data.tools.merge import merge


def data(classes, *files, crowd=False):
    def objects():
        return [Annotation(index, (1, 1, 3, 3), crowd=crowd) for index in range(len(classes))]

    return DataSet(list(classes), [ImageRecord(file, 1, 8, 8, objects()) for file in files])


def test_different_images_label_the_classes_of_their_set():
    merged = merge([data("ab", "1.png", "2.png"), data("bc", "3.png")])
    assert merged.classes == ["a", "b", "c"]
    assert [record.image_id for record in merged.images] == [1, 2, 3]
    assert [[each.category for each in record.annotations] for record in merged.images] == [[0, 1], [0, 1], [1, 2]]
    assert [record.labelled_classes for record in merged.images] == [[0, 1], [0, 1], [1, 2]]


def test_sets_of_equal_classes_label_all():
    assert [record.labelled_classes for record in merge([data("ab", "1.png"), data("ba", "2.png")]).images] == [
        None,
        None,
    ]


def test_an_image_of_two_sets_has_the_objects_of_both(caplog):
    (record,) = merge([data("a", "1.png"), data("b", "1.png")]).images
    assert ([each.category for each in record.annotations], record.labelled_classes) == ([0, 1], None)
    assert not caplog.records
    (record,) = merge([data("ab", "1.png"), data("bc", "1.png"), data("d", "1.png")]).images
    assert ([each.category for each in record.annotations], record.labelled_classes) == ([0, 1, 2, 3], None)
    assert "1 image: in more than one data set with a common class" in caplog.text


def test_crowds_of_a_common_class_are_kept_and_slices_are_different_images():
    (record,) = merge([data("a", "1.png"), data("a", "1.png", crowd=True)]).images
    assert [each.crowd for each in record.annotations] == [False, True]
    one, two = data("a", "v.nii"), data("a", "v.nii")
    one.images[0].extra["slice"], two.images[0].extra["slice"] = 1, 2
    assert len(merge([one, two]).images) == 2


def test_a_map_decides_the_classes():
    class_map = ClassMap("m", ("x", "y"), {"a": "x", "b": "y", "c": None})
    merged = merge([data("ab", "1.png"), data("bc", "2.png")], class_map)
    assert merged.classes == ["x", "y"]
    assert [[each.category for each in record.annotations] for record in merged.images] == [[0, 1], [1]]
    assert [record.labelled_classes for record in merged.images] == [None, [1]]


def test_different_keypoints_are_refused_and_equal_ones_kept():
    one, two = data("a", "1.png"), data("a", "2.png")
    one.keypoints, one.skeleton, two.keypoints = ["n", "e"], [(0, 1)], ["n", "e"]
    assert (merge([one, two]).keypoints, merge([one, two]).skeleton) == (["n", "e"], [(0, 1)])
    two.keypoints = ["n"]
    with pytest.raises(InputError, match="different keypoints"):
        merge([one, two])


def test_a_link_is_the_image_that_it_leads_to_and_regions_are_not_doubled(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    one = data("ab", str(tmp_path / "a.png"), crowd=True)
    two = data("ab", str(tmp_path / "b.png"), crowd=True)
    (record,) = merge([one, two]).images
    assert record.file_name == str(tmp_path / "a.png")
    assert [(each.category, each.crowd) for each in record.annotations] == [(0, True), (1, True)]
    two.images[0].annotations[0].box = (4, 4, 6, 6)
    assert len(merge([one, two]).images[0].annotations) == 3
