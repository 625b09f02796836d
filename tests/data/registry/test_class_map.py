"""Class maps: what becomes of each class, which classes an image labels, and names of data sets with a map."""

import json

import pytest

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.data.registry.class_map import ClassMap, read_class_map
from maskrcnn_ext.data.registry.resolve import absolute_name

TEXT = """
classes: [vehicle, person, dog]
map: {car: vehicle, truck: vehicle, pedestrian: person, DontCare: __ignore__, tree: }
"""


def data(*classes, labelled=None):
    objects = [Annotation(index, (1, 1, 3, 3), id=index + 1) for index in range(len(classes))]
    return DataSet(
        list(classes), [ImageRecord("a.png", 1, 8, 8, objects, labelled_classes=labelled)], [4] * len(classes)
    )


@pytest.fixture
def read(tmp_path):
    def read(text=TEXT):
        file = tmp_path / "classes.yaml"
        file.write_text(text)
        return read_class_map(file)

    return read


def test_each_class_is_mapped(read):
    mapped = read().apply(data("car", "truck", "dog", "tree", "DontCare"))
    assert (mapped.classes, mapped.category_ids) == (["vehicle", "person", "dog"], None)
    (record,) = mapped.images
    found = [(each.category, each.crowd) for each in record.annotations]
    assert found == [(0, False), (0, False), (2, False), (0, True), (1, True), (2, True)]
    assert record.labelled_classes == [0, 2]


def test_an_image_that_labels_all_classes_has_no_list(read):
    assert read().apply(data("car", "pedestrian", "dog")).images[0].labelled_classes is None


def test_classes_that_an_image_labels_are_mapped_along(read):
    mapped = read().apply(data("car", "pedestrian", "dog", labelled=[1]))
    assert mapped.images[0].labelled_classes == [1]
    assert read().apply(data("car", "pedestrian", "dog", labelled=[])).images[0].labelled_classes == []


def test_without_classes_they_are_those_of_the_map(read):
    assert read("map: {car: vehicle, bus: vehicle, man: person, x: __ignore__}").classes == ("vehicle", "person")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[car]", "expected `map:`"),
        ("classes: [a]", "expected `map:`"),
        ("map: {a: b}\nname: x", "expected `map:`"),
        ("map: {a: 3}", "`map` has 'a': 3, expected names"),
        ("map: {yes: b}", "quote yes, no"),
        ("classes: a\nmap: {a: a}", "`classes` is 'a', expected a list of names"),
        ("map: {a: }", r"`classes` is \[\], expected"),
        ("classes: [b]\nmap: {a: c}", "`map` names c, which `classes` lacks"),
        ("classes: [b, b]\nmap: {a: b}", "`classes` has a name twice"),
        ("map: {", "classes.yaml"),
    ],
)
def test_broken_maps_are_named(read, text, message):
    with pytest.raises(InputError, match=message):
        read(text)


def test_a_class_that_the_map_lacks_is_named():
    class_map = ClassMap("m.yaml", ("vehicle",), {"car": "vehicle"})
    with pytest.raises(InputError, match=r"m.yaml: `map` lacks the class 'boat': add `boat: <class>`, or `boat:`"):
        class_map.apply(data("car", "boat"))
    with pytest.raises(InputError, match="did you mean car"):
        class_map.apply(data("cars"))


def write_coco(file, names):
    boxes = [{"id": i, "image_id": 1, "category_id": i, "bbox": [1, 1, 3, 3]} for i in range(1, len(names) + 1)]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}],
        "annotations": boxes,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
    }
    file.write_text(json.dumps(content))
    return f"coco:{file}@{file.parent}"


def test_several_sets_are_trained_on_with_one_map(tmp_path, monkeypatch):
    (tmp_path / "m.yaml").write_text("classes: [vehicle, person]\nmap: {car: vehicle, bus: vehicle, man: person}\n")
    (tmp_path / "list.txt").write_text("1\n")
    one, two = write_coco(tmp_path / "one.json", ["car", "bus"]), write_coco(tmp_path / "two.json", ["man"])
    names = [f"{one}@map:{tmp_path}/m.yaml", f"{two}@list:{tmp_path}/list.txt@map:{tmp_path}/m.yaml"]
    first, second = get_dataset_dicts(names)
    assert [found["category_id"] for found in first["annotations"]] == [0, 0]
    assert [found["category_id"] for found in second["annotations"]] == [1]
    assert (first["labelled_classes"], second["labelled_classes"]) == ([0], [1])
    assert len(get_dataset_dicts(f"{one}@map:{tmp_path}/m.yaml@list:{tmp_path}/list.txt")) == 1
    monkeypatch.chdir(tmp_path)
    assert absolute_name(f"{one}@map:m.yaml") == names[0]
    with pytest.raises(InputError, match="has a map of its classes already"):
        get_dataset_dicts(f"{names[0]}@map:{tmp_path}/m.yaml")
    with pytest.raises(InputError, match=r"gone\.yaml: cannot be read"):
        get_dataset_dicts(f"{one}@map:{tmp_path}/gone.yaml")
