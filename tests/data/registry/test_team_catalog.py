"""A team's YAML catalogue: every tool finds it, and a wrong entry is an error of one line."""

import os

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.registry.keypoints import Skeleton
from maskrcnn_ext.data.registry.resolve import ensure_registered, register_named_datasets
from maskrcnn_ext.data.registry.team_catalog import read_team_catalog


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a catalogue and names it in the environment; its sets are forgotten after the test."""
    before = set(DatasetCatalog.list())

    def write(text, name="sets.yaml"):
        file = tmp_path / name
        file.write_text(text)
        monkeypatch.setenv("MASKRCNN_EXT_CATALOG", str(file))
        return file

    yield write
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


SHAPES = """
team_shapes:
  format: coco
  json: shapes/annotations.json
  images: shapes/images
"""


def test_a_set_is_known_by_name_with_paths_beside_the_file(write, tmp_path, shapes, monkeypatch):
    (tmp_path / "shapes").symlink_to(shapes.parent)
    write(SHAPES)
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    monkeypatch.chdir("/")
    assert len(get_dataset_dicts("team_shapes", filter_empty=False)) == 8
    assert len(load_dataset("team_shapes").images) == 8
    metadata = MetadataCatalog.get("team_shapes")
    assert metadata.json_file == str(tmp_path / "shapes/annotations.json")
    assert metadata.thing_classes == ["disc", "rectangle", "triangle", "star", "ring"]


def test_several_files_absolute_paths_and_options(write, tmp_path, monkeypatch):
    first = write(SHAPES)
    second = write(
        "parts: {format: via, json: /data/via.json, images: ~/img, classes: [bolt, nut], attribute: kind}",
        "second.yaml",
    )
    monkeypatch.setenv("MASKRCNN_EXT_CATALOG", f"{first}{os.pathsep}{second}")
    for _ in range(2):
        register_named_datasets()
    assert {"team_shapes", "parts"} <= set(DatasetCatalog.list())
    assert MetadataCatalog.get("parts").thing_classes == ["bolt", "nut"]
    source = DatasetCatalog["parts"]
    assert [str(source.path_of(key)) for key in ("json", "images")] == [
        "/data/via.json",
        os.path.expanduser("~/img"),  # noqa: PTH111
    ]


def test_any_tool_has_the_sets_by_the_hook(write, run_python):
    file = write(SHAPES)
    code = "from detectron2.data import DatasetCatalog as d; print('team_shapes' in d.list())"
    env = {"DETECTRON2_ENV_MODULE": "maskrcnn_ext.env", "MASKRCNN_EXT_CATALOG": str(file)}
    assert run_python("-c", code, env=env).stdout.strip() == "True"


def test_no_variable_and_empty_files_are_no_sets(write, monkeypatch):
    register_named_datasets()
    before = set(DatasetCatalog.list())
    write("# nothing yet\n")
    register_named_datasets()
    monkeypatch.delenv("MASKRCNN_EXT_CATALOG")
    register_named_datasets()
    assert set(DatasetCatalog.list()) == before


def test_missing_data_is_named_with_the_teams_layout(write, tmp_path):
    write(SHAPES + "  layout: shapes/annotations.json and shapes/images/*.jpg")
    with pytest.raises(InputError) as caught:
        get_dataset_dicts("team_shapes")
    assert str(caught.value) == (
        f"data set team_shapes: no such file or folder: {tmp_path}/shapes/annotations.json; "
        f"expected below {tmp_path}: shapes/annotations.json and shapes/images/*.jpg"
    )


def test_a_teams_set_comes_before_ours_of_the_same_name(write, tmp_path):
    register_named_datasets()
    DatasetCatalog.remove("balloon_val")
    MetadataCatalog.remove("balloon_val")
    try:
        write("balloon_val: {format: coco, json: a.json, images: b}")
        ensure_registered("balloon_val")
        assert DatasetCatalog["balloon_val"].format == "coco"
    finally:
        DatasetCatalog.remove("balloon_val")
        MetadataCatalog.remove("balloon_val")
        os.environ.pop("MASKRCNN_EXT_CATALOG")
        register_named_datasets()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", r"sets\.yaml, line 1: not a YAML file \("),
        ("- a\n- b", r"sets\.yaml: is a list, expected a mapping from names"),
        ("a: coco", "entry 'a': expected a mapping with `format`"),
        ("1: {format: coco}", "entry 1: a name must be text; put it in quotes"),
        ("a: {json: b}", "entry 'a': `format` is None"),
        ("a: {format: cocoa, json: b}", "entry 'a': `format`: unknown format 'cocoa', expected one of"),
        ("a: {format: coco, json: b}", r"sets\.yaml: data set a: format coco needs `images`"),
        ("a: {format: coco, json: b, images: c, image_root: d}", "data set a: format coco takes no `image_root`"),
        ("a: {format: coco, json: 5, images: c}", "entry 'a': `json` is 5, expected a path"),
        ("a: {format: coco, json: b, images: [c, d]}", r"entry 'a': `images` is \['c', 'd'\], expected a path"),
        ("a: {format: coco, json: b, images: c, classes: dog}", "entry 'a': `classes` is 'dog', expected a list"),
        ("a: {format: coco, json: b, images: c, classes: [no]}", r"`classes` is \[False\].*quote yes, no"),
        ("a: {format: coco, json: b, images: c, layout: [d]}", r"entry 'a': `layout` is \['d'\]"),
        ("a: {format: dsb2018, images: c, split: first}", "entry 'a': `split` is 'first', expected a function"),
        ("a: {format: via, json: b, images: c, attribute: 3}", "entry 'a': `attribute` is 3, expected a text"),
        ("a: {format: coco, json: b, images: c, only: dog}", "entry 'a': `only` is 'dog', expected a list of texts"),
        ("a: {format: coco}\na: {format: via}", "line 1: not a YAML file .*duplicate key 'a'"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: not a YAML file"),
    ],
)
def test_a_wrong_entry_is_named(write, text, message):
    write(text)
    with pytest.raises(InputError, match=message) as caught:
        get_dataset_dicts("balloon_train")
    assert "sets.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_taken_name_are_named(write, tmp_path, monkeypatch):
    write("team_two: {format: coco, json: a.json, images: b}")
    register_named_datasets()
    write("team_two: {format: coco, json: other.json, images: b}")
    with pytest.raises(InputError, match=r"sets\.yaml: data set team_two is registered already"):
        register_named_datasets()
    monkeypatch.setenv("MASKRCNN_EXT_CATALOG", str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read \(No such file.*\$MASKRCNN_EXT_CATALOG"):
        register_named_datasets()


def test_a_merge_key_shares_common_settings(write, tmp_path):
    file = write(
        "one: &base {format: coco, json: a.json, images: b, classes: [x]}\ntwo:\n  <<: *base\n  json: c.json\n"
    )
    one, two = read_team_catalog(file)
    assert (one.options["json"], two.options["json"]) == ("a.json", "c.json")
    assert two.classes == ("x",)


def test_a_catalogue_of_a_windows_editor_is_read(write, tmp_path):
    file = write(f"sets: {{format: coco, json: a.json, images: {tmp_path}}}")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert [source.name for source in read_team_catalog(file)] == ["sets"]
    for content in (b"sets: \0", b"[" * 5000):
        file.write_bytes(content)
        with pytest.raises(InputError, match="not a YAML file") as caught:
            read_team_catalog(file)
        assert "\n" not in str(caught.value)


def test_a_skeleton_is_part_of_an_entry(write):
    file = write(
        "mice:\n  format: coco\n  json: a.json\n  images: b\n"
        "  skeleton: {names: [nose, left_ear, right_ear], sigmas: [0.1, 0.2, 0.2], links: [[nose, left_ear]]}\n"
    )
    (source,) = read_team_catalog(file)
    assert source.skeleton == Skeleton(
        ("nose", "left_ear", "right_ear"), sigmas=(0.1, 0.2, 0.2), links=(("nose", "left_ear"),)
    )


@pytest.mark.parametrize(
    ("skeleton", "message"),
    [
        ("[nose]", "`skeleton`: expected a mapping with `names` and, if known, flip_map, sigmas, links, each a list"),
        ("{links: [[a, b]]}", "`skeleton`: expected a mapping with `names`"),
        ("{names: [a], colour: [red]}", "`skeleton`: expected a mapping"),
        ("{names: nose}", "each a list"),
        ("{names: [a, b], sigmas: [1]}", "skeleton: 1 `sigmas` for 2 `names`"),
        ("{names: [a, b], links: [1]}", "`links` is 1, expected a list of names"),
    ],
)
def test_faults_of_a_skeleton_are_named(write, skeleton, message):
    file = write(f"mice: {{format: coco, json: a.json, images: b, skeleton: {skeleton}}}")
    with pytest.raises(InputError, match=message) as caught:
        read_team_catalog(file)
    assert "\n" not in str(caught.value)
    assert "entry 'mice'" in str(caught.value)
