"""The labelme writer: parts of an object share a group, and the objects that the format cannot express are counted."""

import json

import numpy as np

from maskrcnn_ext.data.formats.labelme import read_labelme
from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.writers import find_writer
from maskrcnn_ext.ops.rle import encode_mask
from tests.helpers.written_sets import assert_same, make_set, square


def test_parts_of_an_object_share_a_group_and_boxes_are_rectangles(tmp_path):
    mask = np.zeros((40, 60), bool)
    mask[2:10, 2:10] = mask[20:30, 30:50] = True
    parts = Annotation(0, (2, 2, 50, 30), encode_mask(mask))
    data = make_set(tmp_path, [square(1, 1, 5), parts, Annotation(1, (1.5, 2, 10.25, 12))], classes=("leaf", "Käfer"))
    assert not find_writer("labelme")(data, tmp_path / "out", link=False)
    content = json.loads((tmp_path / "out/a.json").read_text(encoding="utf-8"))
    shapes = [(shape["label"], shape["shape_type"], shape["group_id"]) for shape in content["shapes"]]
    assert shapes == [
        ("leaf", "polygon", None),
        ("leaf", "polygon", 2),
        ("leaf", "polygon", 2),
        ("Käfer", "rectangle", None),
    ]
    assert content["shapes"][3]["points"] == [[1.5, 2], [10.25, 12]]
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("a.png", 40, 60)
    after = read_labelme(tmp_path / "out", classes=["leaf", "Käfer"]).images[0].annotations
    assert [one.category for one in after] == [0, 0, 1]
    assert [len(one.segmentation) for one in after[:2]] == [1, 2]


def test_labelme_counts_the_objects_that_it_cannot_express(tmp_path):
    lost_objects = [
        Annotation(0, (1, 1, 9, 9), crowd=True),
        Annotation(0, (70, 1, 90, 9), [[70, 1, 90, 1, 90, 9]]),
    ]
    kept = [Annotation(0, (1, 1, 9, 9), square(1, 1, 8).segmentation, keypoints=[1.5, 1.5, 2])]
    data = make_set(tmp_path, [*lost_objects, *kept], classes=("thing", "other"))
    lost = find_writer("labelme")(data, tmp_path / "out", link=False)
    assert sorted(lost.values()) == [1, 1, 1]
    assert [text.split()[0] for text in sorted(lost)] == ["crowds", "keypoints", "objects"]
    data.images[0].annotations = kept
    assert_same(data, read_labelme(tmp_path / "out"), lowest=1.0)


def test_empty_classes_and_their_order_are_kept(tmp_path):
    data = make_set(tmp_path, [square(1, 1, 5)], classes=("zebra", "nothing", "ant"))
    assert not find_writer("labelme")(data, tmp_path / "out", link=False)
    assert (tmp_path / "out/labels.txt").read_text() == "zebra\nnothing\nant\n"
    after = read_labelme(tmp_path / "out")
    assert after.classes == ["zebra", "nothing", "ant"]
    assert after.images[0].annotations[0].category == 0


def test_classes_of_one_name_are_counted(tmp_path):
    data = make_set(tmp_path, [square(1, 1, 5)], classes=("card", "card"))
    lost = find_writer("labelme")(data, tmp_path / "out", link=False)
    assert lost == {"classes merged with another class of the same name": 1}
