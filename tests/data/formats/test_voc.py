"""Pascal VOC: boxes, instance PNGs, lists of ids, and errors for broken files."""

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.voc import read_voc

ANNOTATION = """<annotation>
	<folder>VOC2012</folder>
	<filename>{name}.jpg</filename>
	<source><database>The VOC2007 Database</database></source>
	<size><width>{width}</width><height>{height}</height><depth>3</depth></size>
	<segmented>1</segmented>{objects}
</annotation>"""
OBJECT = """
	<object>
		<name>{name}</name>
		<pose>Left</pose>
		<truncated>1</truncated>
		<difficult>{difficult}</difficult>
		<bndbox><xmax>{x1}</xmax><xmin>{x0}</xmin><ymax>{y1}</ymax><ymin>{y0}</ymin></bndbox>
		<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
	</object>"""


def thing(name, x0, y0, x1, y1, difficult=0):
    return OBJECT.format(name=name, x0=x0, y0=y0, x1=x1, y1=y1, difficult=difficult)


@pytest.fixture
def voc(tmp_path):
    for folder in ("Annotations", "JPEGImages", "SegmentationObject"):
        (tmp_path / folder).mkdir()

    def write(*objects, name="2007_000032", width=50, height=40):
        Image.new("RGB", (50, 40)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        text = ANNOTATION.format(name=name, width=width, height=height, objects="".join(objects))
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
        return tmp_path / "Annotations", tmp_path / "JPEGImages"

    return write


def write_instances(folder, labels, name="2007_000032"):
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(np.random.default_rng(0).integers(0, 255, 768).tolist())
    image.save(folder / f"{name}.png")


def test_boxes_are_1_based_and_include_their_last_pixel(voc):
    data = read_voc(*voc(thing("dog", 1, 1, 50, 40), thing("cat", 11, 21, 20, 22), thing("dog", 5.5, 6.5, 9.25, 10)))
    assert data.classes == ["cat", "dog"]
    (record,) = data.images
    assert (record.image_id, record.height, record.width) == ("2007_000032", 40, 50)
    boxes = [annotation.box for annotation in record.annotations]
    assert boxes == [(0, 0, 50, 40), (10, 20, 20, 22), (4.5, 5.5, 9.25, 10)]
    assert [annotation.category for annotation in record.annotations] == [1, 0, 1]
    assert record.annotations[0].segmentation is None


def test_boxes_of_other_tools_are_edges(voc):
    (record,) = read_voc(*voc(thing("dog", 0, 0.5, 50, 40)), one_based=False).images
    assert record.annotations[0].box == (0, 0.5, 50, 40)


def test_a_box_is_cut_at_the_edges(voc):
    (record,) = read_voc(*voc(thing("dog", 0, -3, 55, 41))).images
    assert record.annotations[0].box == (0, 0, 50, 40)


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "iso-8859-1", "utf-16", "utf-8"])
def test_a_declared_encoding_is_read(voc, encoding):
    name = "caf\u00e9" if encoding == "iso-8859-1" else "\u732b"
    annotations, images = voc(thing(name, 1, 1, 9, 9))[:2]
    (file,) = annotations.glob("*.xml")
    text = file.read_text(encoding="utf-8")
    file.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    assert read_voc(annotations, images).classes == [name]


def test_an_encoding_that_is_not_declared_is_named(voc):
    annotations, images = voc(thing("\u732b\u72d7", 1, 1, 9, 9))[:2]
    (file,) = annotations.glob("*.xml")
    file.write_bytes(file.read_text(encoding="utf-8").encode("gb18030"))
    with pytest.raises(InputError, match=r"not UTF-8, probably gb18030.*iconv -f gb18030"):
        read_voc(annotations, images)


def test_swapped_corners_are_put_in_order_and_counted(voc, caplog):
    (record,) = read_voc(*voc(thing("dog", 9, 1, 1, 9), thing("dog", 9, 12, 20, 2))).images
    assert [annotation.box for annotation in record.annotations] == [(0, 0, 9, 9), (8, 1, 20, 12)]
    assert "2 boxes have swapped corners" in caplog.text


ROTATED = """<object><name>dog</name><bndbox><xmin>10.0</xmin><ymin>15.0</ymin><xmax>40.0</xmax><ymax>25.0</ymax></bndbox>
<attributes><attribute><name>rotation</name><value>{degrees}</value></attribute></attributes></object>"""
ROBNDBOX = """<object><name>dog</name><robndbox><cx>25</cx><cy>20</cy><w>30</w><h>10</h><angle>{radians}</angle></robndbox></object>"""


@pytest.mark.parametrize("degrees", [90, 30, -30])
@pytest.mark.parametrize("tool", ["CVAT", "roLabelImg"])
def test_a_rotated_box_becomes_a_polygon(voc, degrees, tool, caplog):
    text = ROTATED.format(degrees=degrees) if tool == "CVAT" else ROBNDBOX.format(radians=np.deg2rad(degrees))
    (annotation,) = read_voc(*voc(text)[:2]).images[0].annotations
    expected = cv2.boxPoints(((25, 20), (30, 10), degrees))
    found = np.reshape(annotation.segmentation, (-1, 2))
    distances = np.linalg.norm(found[:, None] - expected, axis=2)
    np.testing.assert_allclose(distances.min(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(annotation.box, [*expected.min(axis=0), *expected.max(axis=0)], atol=1e-3)
    assert "1 rotated box became a polygon" in caplog.text


def test_a_box_with_a_rotation_of_zero_is_upright(voc):
    (annotation,) = read_voc(*voc(ROTATED.format(degrees="0.0"))[:2]).images[0].annotations
    assert (annotation.box, annotation.segmentation) == ((9, 14, 40, 25), None)


def test_the_error_for_difficult_objects_names_the_option(voc, caplog):
    annotations, images = voc(thing("dog", 1, 1, 9, 9, difficult=1))[:2]
    with pytest.raises(InputError, match=r"objects of its 1 image are all crowds .1.*add @keep_difficult:true"):
        get_dataset_dicts(f"voc:{annotations}@{images}")
    assert len(get_dataset_dicts(f"voc:{annotations}@{images}@keep_difficult:true")) == 1


def test_difficult_objects_are_crowds_unless_kept(voc):
    folders = voc(thing("dog", 1, 1, 9, 9, difficult=1), thing("dog", 1, 1, 9, 9))
    assert [each.crowd for each in read_voc(*folders).images[0].annotations] == [True, False]
    assert [each.crowd for each in read_voc(*folders, keep_difficult=True).images[0].annotations] == [False, False]


def test_instances_are_assigned_to_the_objects_whose_boxes_they_fill(voc, tmp_path):
    # In the XML the smaller object, which is inside the larger one's box, comes second; in the PNG it is the first.
    folders = voc(thing("cow", 6, 6, 40, 35), thing("dog", 11, 11, 20, 20), thing("cat", 45, 1, 46, 2))
    labels = np.zeros((40, 50), int)
    labels[5:35, 5:40], labels[6:34, 6:39] = 255, 2
    labels[10:20, 10:20], labels[11:19, 11:19] = 255, 1
    write_instances(tmp_path / "SegmentationObject", labels)
    (record,) = read_voc(*folders, objects=tmp_path / "SegmentationObject").images
    cow, dog, cat, *unlabelled = record.annotations
    np.testing.assert_array_equal(mask_util.decode(cow.segmentation), labels == 2)
    np.testing.assert_array_equal(mask_util.decode(dog.segmentation), labels == 1)
    assert cow.box == (5, 5, 40, 35)  # the XML's, which has the border
    assert (cow.id, dog.id, cat.id, cat.segmentation) == (2, 1, None, None)
    assert [(each.category, each.crowd) for each in unlabelled] == [(0, True), (1, True), (2, True)], (
        "one for each class"
    )
    np.testing.assert_array_equal(mask_util.decode(unlabelled[0].segmentation), labels == 255)


def test_an_instance_that_no_object_has_is_named(voc, tmp_path):
    folders = voc(thing("cow", 1, 1, 10, 10))
    labels = np.zeros((40, 50), int)
    labels[:10, :10], labels[20:30, 20:30] = 1, 2
    write_instances(tmp_path / "SegmentationObject", labels)
    with pytest.raises(InputError, match=r"2007_000032\.png: instance 2 overlaps no object of .*2007_000032\.xml"):
        read_voc(*folders, objects=tmp_path / "SegmentationObject")
    folders = voc()
    with pytest.raises(InputError, match="instance 1 overlaps no object"):
        read_voc(*folders, objects=tmp_path / "SegmentationObject")
    write_instances(tmp_path / "SegmentationObject", labels * 0)
    assert read_voc(*folders, objects=tmp_path / "SegmentationObject").images[0].annotations == []


def test_a_missing_or_wrong_instance_png_is_named(voc, tmp_path):
    folders = voc(thing("cow", 1, 1, 10, 10))
    with pytest.raises(InputError, match=r"no instance PNG .*2007_000032\.png; name the images .* with `split`"):
        read_voc(*folders, objects=tmp_path / "SegmentationObject")
    write_instances(tmp_path / "SegmentationObject", np.zeros((40, 51)))
    with pytest.raises(InputError, match="label image is 51 x 40, its image 50 x 40"):
        read_voc(*folders, objects=tmp_path / "SegmentationObject")


def test_a_split_names_the_images_in_its_order(voc, tmp_path):
    for name in ("a", "b", "c"):
        folders = voc(thing(f"dog_{name}", 1, 1, 9, 9), name=name)
    split = tmp_path / "dog_train.txt"
    split.write_text("c  1\na -1\n\n")
    data = read_voc(*folders, split=split)
    assert [record.image_id for record in data.images] == ["c", "a"]
    assert data.classes == ["dog_a", "dog_c"]
    assert [record.image_id for record in read_voc(*folders).images] == ["a", "b", "c"]
    split.write_text("a\r\nb\r\na\r\n")
    with pytest.raises(InputError, match=r"dog_train\.txt: a occurs twice: keep one of them"):
        read_voc(*folders, split=split)
    split.write_text("missing\n")
    with pytest.raises(InputError, match=r"missing\.xml: not a readable XML file"):
        read_voc(*folders, split=split)
    split.write_text("")
    with pytest.raises(InputError, match=r"dog_train\.txt: no annotations here, expected ids"):
        read_voc(*folders, split=split)


def test_a_string_names_it(voc):
    annotations, images = voc(thing("dog", 1, 1, 50, 40))
    (record,) = get_dataset_dicts(f"voc:{annotations}@{images}")
    assert record["annotations"][0]["bbox"] == [0, 0, 50, 40]


def test_an_image_without_objects_is_kept_and_a_size_of_0_is_none(voc):
    (record,) = read_voc(*voc(width=0, height=0), classes=["dog"]).images
    assert (record.annotations, record.height, record.width) == ([], 40, 50)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([thing("dog", 1, 1, "x", 9)], "object 0, <bndbox>: expected numbers"),
        ([thing("dog", 1, 1, "", 9)], "object 0: <object> has no <bndbox><xmax>"),
        ([thing("dog", 1, 1, "nan", 9)], "object 0, <bndbox>: expected finite numbers"),
        ([thing("dog", 1, 1, 9, 9), thing("", 1, 1, 9, 9)], "<object> has no <name>"),
        (
            [thing("dog", 1, 1, 9, 9), thing("dog", 60, 1, 70, 9)],
            r"object 1: box .* has no area in an image of 50 x 40",
        ),
        ([thing("dog", 60, 1, 70, 9)], "object 0: box .* has no area"),
    ],
)
def test_a_broken_object_is_named(voc, objects, message):
    with pytest.raises(InputError, match=message) as caught:
        read_voc(*voc(*objects))
    assert "2007_000032.xml: " in str(caught.value)


def test_broken_files_are_named(voc, tmp_path):
    annotations, images = voc(thing("dog", 1, 1, 9, 9))
    with pytest.raises(InputError, match=r"object 0: class 'dog', expected one of cat"):
        read_voc(annotations, images, classes=["cat"])
    with pytest.raises(InputError, match=r"<height> is 41, but .* is 50 x 40"):
        read_voc(*voc(height=41))
    for text, message in (
        ("<annotation>", "not a readable XML file"),
        ("<html></html>", "expected <annotation>, found <html>"),
        ("<annotation></annotation>", "<annotation> has no <filename>"),
        ("<annotation><filename>../../a.jpg</filename></annotation>", r"cannot read image .*JPEGImages/a\.jpg"),
        ("<annotation><filename>b.jpg</filename></annotation>", r"cannot read image .*b\.jpg"),
        ("<?xml version='1.0' encoding='none'?><annotation/>", "not a readable XML file"),
    ):
        (images / "2007_000032.jpg").unlink(missing_ok=True)
        (annotations / "2007_000032.xml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_voc(annotations, images)
    (annotations / "2007_000032.xml").unlink()
    with pytest.raises(InputError, match=r"no annotations here, expected \*\.xml files"):
        read_voc(annotations, images)


@pytest.mark.parametrize("name", ["2007_000032", "C:\\me\\2007_000032.jpg", "../x/2007_000032.jpg"])
def test_an_image_is_found_by_the_name_that_tools_write(voc, name, caplog):
    annotations, images = voc(thing("dog", 1, 1, 9, 9))
    file = annotations / "2007_000032.xml"
    file.write_text(file.read_text().replace("2007_000032.jpg", name))
    (record,) = read_voc(annotations, images).images
    assert record.file_name == str(images / "2007_000032.jpg")
    assert not caplog.text


def test_an_outdated_file_name_is_logged(voc, caplog):
    annotations, images = voc(thing("dog", 1, 1, 9, 9))
    file = annotations / "2007_000032.xml"
    file.write_text(file.read_text().replace("2007_000032.jpg", "IMG_1.jpg"))
    assert read_voc(annotations, images).images[0].file_name == str(images / "2007_000032.jpg")
    assert "1 file names a missing image" in caplog.text


def test_outlines_of_roboflow(voc):
    outline = "<polygon><x1>1.5</x1><y1>2</y1><x2>30</x2><y2>2</y2><x3>30</x3><y3>20.25</y3></polygon></object>"
    dog = thing("dog", 1, 2, 30, 20)
    first, second = read_voc(*voc(dog, dog.replace("</object>", outline))).images[0].annotations
    assert first.segmentation is None
    assert second.segmentation == [[1.5, 2, 30, 2, 30, 20.25]]
    for broken, message in (
        (("<y3>20.25</y3>", ""), "at least 3 points"),
        (("20.25", "x"), "expected numbers"),
        (("20.25", "900"), "far"),
    ):
        with pytest.raises(InputError, match=f"object 0, <polygon>: .*{message}"):
            read_voc(*voc(dog.replace("</object>", outline.replace(*broken))))
