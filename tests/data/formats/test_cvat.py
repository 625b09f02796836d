"""CVAT for images 1.1: every shape, groups, crowds, and errors that name the place."""

import logging

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.cvat import read_cvat
from maskrcnn_ext.ops.rle import decode_rle, rle_area, segmentation_to_rle

META = """<version>1.1</version><meta><task><labels>
<label><name>zebra</name></label><label><name>ant</name></label>
<label><name>body</name><type>skeleton</type></label><label><name>knee</name><parent>body</parent></label>
</labels></task></meta>"""


@pytest.fixture
def read(tmp_path):
    (tmp_path / "images/b").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "images/b/a.png"), np.zeros((40, 60, 3), np.uint8))

    def read(shapes, *, root="annotations", image='name="b/a.png" width="60" height="40"', meta=META, **options):
        file = tmp_path / "annotations.xml"
        file.write_text(f'<?xml version="1.0"?><{root}>{meta}<image id="0" {image}>{shapes}</image></{root}>')
        return read_cvat(file, **options)

    return read


def area_of(annotation):
    return rle_area(segmentation_to_rle(annotation.segmentation, 40, 60))


def test_every_shape_that_encloses_an_area_is_read(read, caplog):
    data = read(
        '<tag label="ant"/>'
        '<polygon label="ant" points="1.5,2;10,2;10,12.25" z_order="0"/>'
        '<box label="zebra" xtl="5" ytl="6" xbr="15" ybr="26"/>'
        '<box label="zebra" xtl="20" ytl="10" xbr="40" ybr="20" rotation="90"/>'
        '<ellipse label="ant" cx="30" cy="20" rx="10" ry="5" rotation="90"/>'
        '<mask label="ant" rle="1, 2, 2, 1" left="4" top="3" width="3" height="2"/>'
        '<polyline label="ant" points="1,1;2,2"/><points label="ant" points="1,1"/><skeleton label="body"/>'
    )
    assert data.classes == ["zebra", "ant", "body"]
    (record,) = data.images
    assert (record.image_id, record.height, record.width) == ("b/a.png", 40, 60)
    # The mask and rotated shapes come after the box, which has no outline.
    box, polygon, turned, ellipse, mask = record.annotations
    assert (box.category, box.box, box.segmentation) == (0, (5, 6, 15, 26), None)
    assert polygon.segmentation == [[1.5, 2, 10, 2, 10, 12.25]]
    assert turned.box == pytest.approx((25, 5, 35, 25))
    assert ellipse.box == pytest.approx((25, 10, 35, 30))
    expected = np.zeros((40, 60), bool)
    expected[3, 5:7] = expected[4, 6] = True
    np.testing.assert_array_equal(decode_rle(mask.segmentation), expected)
    assert "3 shapes that enclose no area are left out, such as a points" in caplog.text
    assert "1 rotated box became a polygon" in caplog.text


def test_boxes_may_be_masks(read):
    (annotation,) = (
        read('<box label="ant" xtl="5" ytl="6" xbr="15" ybr="26"/>', rectangles="masks").images[0].annotations
    )
    assert area_of(annotation) == 200


def test_shapes_of_a_group_and_label_are_one_object(read):
    square = '<polygon label="{}" group_id="{}" points="{x},1;{y},1;{y},5;{x},5"/>'
    shapes = [
        square.format("ant", 1, x=1, y=5),
        square.format("ant", 1, x=11, y=15),
        square.format("zebra", 1, x=21, y=25),
    ]
    shapes += [square.format("ant", 0, x=31, y=35), square.format("ant", 0, x=41, y=45)]
    shapes.append('<mask label="ant" group_id="1" rle="0, 4" left="50" top="30" width="2" height="2"/>')
    first, *others = read("".join(shapes)).images[0].annotations
    assert area_of(first) == 36
    assert [(each.category, area_of(each)) for each in others] == [(0, 16), (1, 16), (1, 16)]


def test_crowds_and_ignored_regions(read):
    crowd = '<{} label="{}" {}><attribute name="is_crowd">true</attribute></{}>'
    box, polygon = 'xtl="5" ytl="6" xbr="15" ybr="26"', 'points="1,1;5,1;5,5;1,5"'
    ignored = f'<polygon label="__ignore__" {polygon}/>'
    shapes = crowd.format("box", "ant", box, "box") + crowd.format("polygon", "ant", polygon, "polygon") + ignored
    found = read(shapes).images[0].annotations
    assert [(each.category, each.crowd) for each in found] == [(1, True)] * 2 + [(index, True) for index in range(3)]


def test_classes_of_the_caller_decide(read):
    shape = '<polygon label="ant" points="1,1;5,1;5,5"/>'
    assert read(shape, classes=["ant", "fly"]).images[0].annotations[0].category == 0
    assert read(shape.replace("ant", "other")).classes == ["zebra", "ant", "body", "other"]
    with pytest.raises(InputError, match=r"image 'b/a.png', shape 0 \(polygon\): class 'ant', expected one of fly"):
        read(shape, classes=["fly"])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('<polygon label="ant" points="1,1;5,1"/>', r"shape 0 \(polygon\): `points` are not three or more x,y"),
        ('<polygon label="ant"/>', "`points` are not three"),
        ('<polygon label="ant" points="1,1;5,1;x,3"/>', "`points`: expected numbers"),
        ('<polygon label="ant" points="1,1;5,1;nan,3"/>', "`points`: expected finite numbers"),
        ('<polygon points="1,1;5,1;5,5"/>', "has no `label`"),
        ('<box label="ant" xtl="5" ytl="6" xbr="15"/>', "expected numbers"),
        ('<box label="ant" xtl="5" ytl="6" xbr="5" ybr="9"/>', "has no area in an image of 60 x 40"),
        ('<mask label="ant" rle="1, 2" left="0" top="0" width="2" height="2"/>', "add up to 3, not to its 2 x 2"),
        ('<mask label="ant" rle="4" left="0" top="0" width="2" height="2"/>', "the mask has no pixel"),
        (
            '<mask label="ant" rle="0, 9" left="58" top="0" width="3" height="3"/>',
            "extends beyond its image of 60 x 40",
        ),
        (
            '<mask label="ant" rle="0, 9.5" left="5" top="0" width="3" height="3"/>',
            "expected whole numbers of at least 0",
        ),
        ('<ellipse label="ant" cx="1" cy="1"/>', "expected numbers"),
    ],
)
def test_a_broken_shape_is_named_or_collected(read, shape, message):
    with pytest.raises(InputError, match=message):
        read(shape)
    faults = []
    good = '<polygon label="ant" points="1,1;5,1;5,5"/>'
    assert len(read(shape + good, faults=faults).images[0].annotations) == 1
    assert len(faults) == 1
    assert "\n" not in faults[0]


def test_broken_files_are_named(read, tmp_path):
    with pytest.raises(InputError, match="expected <annotations>, found <annotation>"):
        read("", root="annotation")
    with pytest.raises(InputError, match="these are tracks of CVAT for video"):
        read("", meta="<track/>")
    with pytest.raises(InputError, match=r"image 'b/a.png': `width` is 61, but .* is 60 x 40"):
        read("", image='name="b/a.png" width="61" height="40"')
    with pytest.raises(InputError, match="image None: None is not a file name"):
        read("", image="")
    with pytest.raises(InputError, match="leads out of"):
        read("", image='name="../none.png"')
    (tmp_path / "annotations.xml").write_text("<annotations>")
    with pytest.raises(InputError, match="not a readable XML file"):
        read_cvat(tmp_path / "annotations.xml")


def test_images_beside_the_file_are_found(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 6, 3), np.uint8))
    (tmp_path / "a.xml").write_text('<annotations><image id="0" name="a.png" width="6" height="4"/></annotations>')
    assert read_cvat(tmp_path / "a.xml").images[0].file_name == str(tmp_path / "a.png")


def test_nothing_is_logged_for_plain_files(read, caplog):
    with caplog.at_level(logging.WARNING):
        assert read("").images[0].annotations == []
    assert not caplog.records


def test_exports_of_projects_and_of_videos_are_read(tmp_path):
    for name in ("train/1.png", "val/1.png", "val/frame_000000.PNG"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((4, 6, 3), np.uint8))
    entry = '<image id="0" name="{}" subset="{}" task_id="{}" width="6" height="4"/>'
    entries = [
        entry.format("1.png", "train", 1),
        entry.format("1.png", "val", 2),
        entry.format("frame_000000", "val", 3),
    ]
    file = tmp_path / "annotations.xml"
    file.write_text(f"<annotations>{''.join(entries)}</annotations>")
    data = read_cvat(file)
    assert [record.image_id for record in data.images] == ["train/1.png", "val/1.png", "val/frame_000000"]
    assert data.images[2].file_name.endswith("val/frame_000000.PNG")
    file.write_text(f"<annotations>{entries[0] * 2}</annotations>")
    with pytest.raises(InputError, match=r"image: train/1\.png occurs twice: keep one of them"):
        read_cvat(file)


def test_labels_keep_their_spaces(read):
    meta = "<meta><task><labels><label><name> ant</name></label></labels></task></meta>"
    assert read('<polygon label=" ant" points="1,1;5,1;5,5"/>', meta=meta).classes == [" ant"]


def test_a_subset_of_a_project_is_read(tmp_path):
    elements = []
    for subset, name in (("Train", "a.png"), ("Train", "b.png"), ("Validation", "a.png")):
        file = tmp_path / "images" / subset / name
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.zeros((40, 60, 3), np.uint8))
        elements.append(f'<image name="{name}" subset="{subset}"/>')
    file = tmp_path / "annotations.xml"
    file.write_text(f"<annotations>{''.join(elements)}</annotations>")
    ids = [
        [record.image_id for record in read_cvat(file, subset=each).images] for each in ("Train", "Validation", None)
    ]
    assert ids == [
        ["Train/a.png", "Train/b.png"],
        ["Validation/a.png"],
        ["Train/a.png", "Train/b.png", "Validation/a.png"],
    ]
    with pytest.raises(InputError, match="no subset 'Test', it has Train, Validation"):
        read_cvat(file, subset="Test")
