"""Names of ``dataset.names``: registered ones, near misses, and strings of a format and files."""

import json
import re
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.registry.resolve import parse_source, register_named_datasets


def test_a_wrong_name_is_an_error_that_suggests_near_ones():
    with pytest.raises(InputError, match="no data set 'nuclei_trian' is registered: did you mean nuclei_train"):
        get_dataset_dicts("nuclei_trian")
    with pytest.raises(InputError, match=r"write coco:/path/annotations\.json@/path/images"):
        get_dataset_dicts("my_pictures")
    with pytest.raises(
        InputError, match=r"unknown format 'cocos': did you mean coco\? \(the formats are bdd100k, .*, yolo\)"
    ):
        get_dataset_dicts("cocos:/only/a.json")
    with pytest.raises(InputError, match=r"unknown format 'pickle' \(the formats are"):
        get_dataset_dicts("pickle:/only/a.json")
    with pytest.raises(InputError, match="write coco:JSON@IMAGES"):
        get_dataset_dicts("coco:/only/a.json")


def test_a_name_that_is_registered_keeps_its_meaning():
    register_named_datasets()
    DatasetCatalog.remove("balloon_val")
    MetadataCatalog.remove("balloon_val")
    try:
        DatasetCatalog.register("balloon_val", lambda: [{"mine": True}])
        register_named_datasets()
        assert DatasetCatalog.get("balloon_val") == [{"mine": True}]
    finally:
        DatasetCatalog.remove("balloon_val")
        register_named_datasets()


def test_a_string_needs_no_registration(shapes):
    spec = f"coco:{shapes}@{shapes.parent / 'images'}"
    dicts = get_dataset_dicts(spec, filter_empty=False)
    data = json.loads(shapes.read_text())
    assert len(dicts) == len(data["images"])
    assert sum(len(record["annotations"]) for record in dicts) == len(data["annotations"])
    assert len(get_dataset_dicts(spec)) == len({annotation["image_id"] for annotation in data["annotations"]})
    metadata = MetadataCatalog.get(spec)
    assert metadata.json_file == str(shapes)
    assert metadata.thing_classes == ["disc", "rectangle", "triangle", "star", "ring"]


def test_a_relative_string_is_relative_to_the_working_directory(shapes, monkeypatch):
    monkeypatch.chdir(shapes.parent)
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    assert len(get_dataset_dicts("coco:annotations.json@images", filter_empty=False)) == 8


def test_an_at_sign_in_a_path(shapes, tmp_path):
    folder = tmp_path / "me@home"
    folder.symlink_to(shapes.parent)
    assert len(get_dataset_dicts(f"coco:{folder}/annotations.json@{folder}/images", filter_empty=False)) == 8


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coco_2017_train", None),
        ("nothing:/a.json@/b", None),
        ("coco:", None),
        ("coco:/a.json@/b", {"json": "/a.json", "images": "/b"}),
        ("coco:/me@/home/a.json@/b", {"json": "/me", "images": "/home/a.json@/b"}),
        ("labelme:/a", {"folder": "/a"}),
    ],
)
def test_a_string_is_split_into_a_format_and_paths(name, expected):
    source = parse_source(name)
    if expected is None:
        assert source is None
    else:
        assert {option: str(source.path_of(option)) for option in expected} == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yolo:/a/data.yaml@val", {"yaml": "/a/data.yaml", "split": "val"}),
        ("yolo:/a/data.yaml", {"yaml": "/a/data.yaml"}),
        ("voc:/a/xml@/b@/c/val.txt", {"annotations": "/a/xml", "images": "/b", "split": "/c/val.txt"}),
        ("kitti_mots:/a@/b@0002,0006", {"instances": "/a", "images": "/b", "sequences": ["0002", "0006"]}),
        ("voc:/a@/b@keep_difficult:true", {"annotations": "/a", "images": "/b", "keep_difficult": True}),
        ("via:/a.json@/b@attribute:1", {"json": "/a.json", "images": "/b", "attribute": "1"}),
        ("kitti_mots:/a@/b@10,11", {"instances": "/a", "images": "/b", "sequences": ["10", "11"]}),
        ("geo:/a@/b@tile:512@attribute:kind", {"vector": "/a", "raster": "/b", "tile": 512, "attribute": "kind"}),
        (
            "coco:/a.json@/b@only:cat,dog@crowds:objects",
            {"json": "/a.json", "images": "/b", "only": ["cat", "dog"], "crowds": "objects"},
        ),
    ],
)
def test_a_string_holds_the_split_and_options(name, expected):
    assert {
        key: str(value) if isinstance(value, Path) else value for key, value in parse_source(name).options.items()
    } == expected


def test_a_string_holds_classes():
    assert parse_source("via:/a.json@/b@classes:cat,dog@attribute:kind").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coco:/a.json@/b@crowd:objects", "format coco takes no `crowd`: did you mean crowds?"),
        ("geo:/a@/b@tile:large", "`tile` is 'large', expected a whole number"),
        ("geo:/a@/b@tile:1@tile:2", "`tile` is set twice"),
        ("geo:/a@/b@tile:512.5", "`tile` is 512.5, expected a whole number"),
        ("geo:/a@/b@tile:true", "`tile` is True, expected a whole number"),
        ("geo:/a@/b@min_visible:most", "`min_visible` is 'most', expected a number"),
        ("voc:/a@/b@keep_difficult:no", "`keep_difficult` is 'no', expected true or false"),
        ("label_image:/a@/b@void:border", "`void` is ['border'], expected a list of numbers"),
        (
            'label_image:/a@/b@categories:["cat"]',
            "`categories` is ['cat'], expected a mapping of numbers to class names",
        ),
        ("dsb2018:/a@split:first", "`split` is 'first', expected a function: register the data set in Python"),
        ("yolo:", None),
    ],
)
def test_wrong_options_of_a_string_are_named(name, message):
    if message is None:
        assert parse_source(name) is None
    else:
        with pytest.raises(InputError, match=re.escape(f"data set {name!r}: {message}")):
            parse_source(name)


def test_an_at_sign_in_the_path_of_a_format_with_splits(tmp_path):
    folder = tmp_path / "me@home"
    folder.mkdir()
    (folder / "data.yaml").touch()
    assert parse_source(f"yolo:{folder}/data.yaml").options == {"yaml": folder / "data.yaml"}
    assert parse_source(f"yolo:{folder}/data.yaml@val").options == {"yaml": folder / "data.yaml", "split": "val"}


def test_a_name_that_is_too_long_for_a_path_is_unknown():
    with pytest.raises(InputError, match="no data set 'aaa"):
        get_dataset_dicts("a" * 5000)
