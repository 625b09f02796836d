"""The Label Studio writer: predictions have scores, and the labelling interface has every class."""

import json
from xml.etree import ElementTree

import pytest

from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.writers import find_writer
from maskrcnn_ext.data.writers.label_studio import write_label_studio_json
from tests.helpers.written_sets import make_set, square


def test_objects_with_scores_are_predictions(tmp_path):
    found = square(1, 1, 8)
    found.score = 0.875
    data = make_set(tmp_path, [found, Annotation(0, (1, 1, 9, 9), score=0.25)])
    find_writer("label_studio")(data, tmp_path / "out", link=False)
    (task,) = json.loads((tmp_path / "out/tasks.json").read_text())
    assert "annotations" not in task
    assert task["predictions"][0]["score"] == pytest.approx(0.5625)
    assert [each["score"] for each in task["predictions"][0]["result"]] == [0.875, 0.25]


def test_an_image_without_predictions_is_not_yet_labelled(tmp_path):
    data = make_set(tmp_path, [])
    for predicted in (True, False):
        write_label_studio_json(data, tmp_path, ["/a.png"], predicted=predicted)
        (task,) = json.loads((tmp_path / "tasks.json").read_text())
        assert ("annotations" in task, "predictions" in task) == (not predicted, predicted)


def test_the_labelling_interface_has_every_class_and_shape(tmp_path):
    data = make_set(tmp_path, [square(1, 1, 8)], classes=("leaf", 'a "b" & c'))
    find_writer("label_studio")(data, tmp_path / "out", link=False)
    root = ElementTree.parse(tmp_path / "out/label_config.xml").getroot()
    for tag in ("PolygonLabels", "BrushLabels", "RectangleLabels"):
        assert [label.get("value") for label in root.iter(tag).__next__()] == ["leaf", 'a "b" & c']


@pytest.mark.parametrize("scored", [False, True])
def test_label_studios_own_check_accepts_each_shape(tmp_path, scored):
    pytest.importorskip("label_studio_sdk")
    from label_studio_sdk.label_interface import LabelInterface

    polygon = Annotation(1, (2.0, 2.0, 9.0, 8.0), [[2.0, 2.0, 9.0, 2.0, 9.0, 8.0]])
    found = [square(1, 1, 8), polygon, Annotation(0, (1, 1, 9, 9))]
    for own in found if scored else ():
        own.score = 0.5
    data = make_set(tmp_path, found, classes=("leaf", 'a "b" & c'))
    find_writer("label_studio")(data, tmp_path / "out", link=False)
    interface = LabelInterface((tmp_path / "out/label_config.xml").read_text())
    interface.validate()
    (task,) = json.loads((tmp_path / "out/tasks.json").read_text())
    (written,) = task["predictions" if scored else "annotations"]
    assert {region["type"] for region in written["result"]} == {"brushlabels", "polygonlabels", "rectanglelabels"}
    if scored:
        assert interface.validate_prediction(written, return_errors=True) == []
    else:
        assert interface.validate_annotation(written)
    written["result"][0]["from_name"] = "nothing"
    assert not (interface.validate_prediction if scored else interface.validate_annotation)(written)
