"""The classes of a data set survive a checkpoint, and records are mapped between class lists by name."""

import json
import logging

from maskrcnn_ext import get_dataset_dicts
from maskrcnn_ext.data.registry.classes import Classes, first_difference, map_by_name


def test_the_classes_of_a_data_set_survive_plain_containers(people):
    assert Classes.of_data_set("never_registered") is None
    get_dataset_dicts(people)
    classes = Classes.of_data_set(people)
    assert (classes.names, classes.category_ids) == (("person",), (1,))
    assert len(classes.keypoint_names) == 17
    assert classes.keypoint_flip_map[0] == ("left_eye", "right_eye")
    assert classes.skeleton == ((0, 1),)
    assert Classes.from_state(classes.state_dict()) == classes
    assert Classes.from_state(json.loads(json.dumps(classes.state_dict()))) == classes
    assert (
        Classes.from_state(None)
        is Classes.from_state({"names": []})
        is Classes.from_state("of another program")
        is None
    )


def test_the_first_difference_of_two_lists():
    assert first_difference(["a", "b"], ["a", "b"]) is None
    assert first_difference(["a", "b"], ["b", "a"]) == 0
    assert first_difference(["a", "b"], ["a"]) == 1


def test_objects_of_other_classes_are_left_out_and_counted(caplog):
    records = [{"annotations": [{"category_id": 0}, {"category_id": 1}, {"category_id": 1}]}, {"file_name": "a.png"}]
    with caplog.at_level(logging.WARNING):
        mapped = map_by_name(records, ["a", "b"], ["c", "a"], "some")
    assert mapped == [
        {"annotations": [{"category_id": 1}], "labelled_classes": [1]},
        {"file_name": "a.png", "labelled_classes": [1]},
    ], "the data set does not know 'c'"
    assert "data set some: left out objects of classes that the model does not have: 2 of 'b'" in caplog.text
    assert len(records[0]["annotations"]) == 3


def test_the_labelled_classes_are_mapped_along():
    records = [{"annotations": [], "labelled_classes": [0, 2]}, {"annotations": []}]
    mapped = map_by_name(records, ["a", "b", "c"], ["c", "b"], "one")
    assert mapped == [{"annotations": [], "labelled_classes": [0]}, {"annotations": []}]
    assert "labelled_classes" in records[0]
    assert map_by_name(records, ["a", "b", "c"], ["a", "b", "c"], "one") is records
