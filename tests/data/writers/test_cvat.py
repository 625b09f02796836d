"""The CVAT writer: crowds and scores are attributes, names are escaped."""

from xml.etree import ElementTree

from maskrcnn_ext.data.formats.cvat import read_cvat
from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.writers import find_writer
from tests.helpers.written_sets import make_set, square


def test_crowds_are_restored(tmp_path):
    crowd = Annotation(0, (1, 1, 9, 9), square(1, 1, 8).segmentation, crowd=True)
    find_writer("cvat")(make_set(tmp_path, [crowd]), tmp_path / "out", link=False)
    assert [each.crowd for each in read_cvat(tmp_path / "out/annotations.xml").images[0].annotations] == [True]


def test_scores_are_attributes_of_automatic_shapes(tmp_path):
    found = square(1, 1, 8)
    found.score = 0.875
    data = make_set(tmp_path, [found, Annotation(0, (1, 1, 9, 9), score=0.25)])
    find_writer("cvat")(data, tmp_path / "out", link=False)
    root = ElementTree.parse(tmp_path / "out/annotations.xml").getroot()
    assert [each.text for each in root.iter("attribute")] == ["0.8750", "0.2500"]
    assert {shape.get("source") for image in root.iter("image") for shape in image} == {"auto"}


def test_names_that_xml_cannot_hold_are_escaped(tmp_path):
    names = ("a\x00b", "c\ud800", '<"&')
    data = make_set(tmp_path, [square(1, 1, 8)], classes=names)
    find_writer("cvat")(data, tmp_path / "out", link=False)
    assert read_cvat(tmp_path / "out/annotations.xml").classes == ["a\\x00b", "c\\ud800", '<"&']
