"""The catalogue of faults, and how faults describe themselves."""

from pathlib import Path

from maskrcnn_ext.data.check import KINDS, SEVERITIES, view_dataset
from maskrcnn_ext.data.check.faults import Fault, group_by_kind, object_fault
from maskrcnn_ext.data.check.view import ImageView


def test_every_kind_has_a_severity_a_title_and_a_fix():
    for kind in KINDS.values():
        assert kind.severity in SEVERITIES
        assert kind.title
        assert kind.fix


def test_faults_are_grouped_by_kind_and_errors_come_first():
    faults = [
        Fault("class-gap", "a"),
        Fault("image-missing", "b"),
        Fault("class-empty", "c"),
        Fault("image-missing", "d"),
    ]
    grouped = group_by_kind(faults)
    assert list(grouped) == ["image-missing", "class-empty", "class-gap"]
    assert [fault.message for fault in grouped["image-missing"]] == ["b", "d"]
    assert group_by_kind([]) == {}


def test_a_fault_names_its_place():
    annotations = [{"id": 7, "image_id": 1}, {"id": 8, "image_id": 99}]
    data = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": annotations, "categories": []}
    found, lost = view_dataset(data, Path(), "set").objects
    assert object_fault("box-broken", found, "").where == "image 1 (a.jpg), annotation 7"
    assert object_fault("box-broken", lost, "").where == "image 99, annotation 8"
    assert (object_fault("box-broken", lost, "").image_id, Fault("class-gap", "").image_id) == (99, None)
    assert Fault("class-gap", "").where == ""


def test_an_image_whose_id_is_its_file_is_named_once():
    same = ImageView(0, "a.jpg", "a.jpg", None, 1, 1)
    assert Fault("image-broken", "", same).where == "image 'a.jpg'"
