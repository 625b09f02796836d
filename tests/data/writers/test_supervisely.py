"""The Supervisely writer: classes and their colours; all else is in test_writers.py."""

import json

from maskrcnn_ext.data.writers import find_writer
from tests.helpers.written_sets import make_set, square


def test_classes_have_different_colours_and_equal_names_are_counted(tmp_path):
    data = make_set(tmp_path, [square(1, 1, 8)], classes=("leaf", "stem", "leaf"))
    lost = find_writer("supervisely")(data, tmp_path / "out", link=False)
    assert lost == {"classes merged with another class of the same name": 1}
    classes = json.loads((tmp_path / "out/meta.json").read_text())["classes"]
    assert [each["title"] for each in classes] == ["leaf", "stem"]
    assert len({each["color"] for each in classes}) == 2
