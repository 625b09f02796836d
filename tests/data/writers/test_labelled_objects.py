"""Ignore regions in label tools: one object with the label `__ignore__`, read back as a crowd of each class."""

import pytest

from maskrcnn_ext.data.formats.records import crowds_of_mask
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.writers import find_writer
from maskrcnn_ext.data.writers.outlines import decode
from tests.helpers.written_sets import READ, make_set, square


@pytest.mark.parametrize("format", ["cvat", "label-studio", "labelme", "supervisely"])
def test_a_region_of_every_class_is_restored(tmp_path, format):
    classes = ("ant", "bee", "cat")
    region = decode(square(20, 10, 9).segmentation, 40, 60)
    region[12:14, 22:25] = False
    crowds = crowds_of_mask(region, len(classes))
    data = make_set(tmp_path, [square(1, 1, 5), *crowds], classes=classes)
    lost = find_writer(format.replace("-", "_"))(data, tmp_path / "out", link=False)
    assert not lost
    back = load_dataset(READ[format].format(tmp_path / "out"))
    assert back.classes == list(classes)
    found = back.images[0].annotations
    assert sorted((each.category, each.crowd) for each in found) == [(0, False), (0, True), (1, True), (2, True)]
    for each in found:
        if each.crowd:
            assert (decode(each.segmentation, 40, 60) == region).all()


def test_a_crowd_of_one_class_among_several_stays_one(tmp_path):
    crowd = square(20, 10, 9)
    crowd.crowd = True
    data = make_set(tmp_path, [crowd], classes=("ant", "bee"))
    assert find_writer("label_studio")(data, tmp_path / "studio", link=False) == {
        "crowds left out, because Label Studio cannot mark them": 1
    }
    find_writer("cvat")(data, tmp_path / "cvat", link=False)
    (found,) = load_dataset(f"cvat:{tmp_path}/cvat/annotations.xml").images[0].annotations
    assert (found.category, found.crowd) == (0, True)


@pytest.mark.parametrize("format", ["cvat", "label-studio", "labelme", "supervisely"])
def test_names_are_printable_and_equal_ones_are_counted(tmp_path, format):
    data = make_set(tmp_path, [square(1, 1, 5)], classes=("two\nlines", "bee", "bee"))
    lost = find_writer(format.replace("-", "_"))(data, tmp_path / "out", link=False)
    assert lost == {"classes merged with another class of the same name": 1}
    assert load_dataset(READ[format].format(tmp_path / "out")).classes == [r"two\nlines", "bee"]
