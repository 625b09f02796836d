"""The data hash changes with annotations and with names and sizes of files, and with nothing else."""

import os
import shutil
import time

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from maskrcnn_ext import get_config
from maskrcnn_ext.engine import data_hash
from maskrcnn_ext.engine.data_hash import data_set_names, hash_data_sets, hash_path


@pytest.fixture
def data(shapes, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(shapes.parent, folder)
    return folder


def config(folder):
    cfg = get_config("domains/shapes.py")
    names = f"coco:{folder / 'annotations.json'}@{folder / 'images'}"
    cfg.dataloader.train.dataset.names = cfg.dataloader.test.dataset.names = names
    return cfg


def data_hash_of(folder):
    return hash_data_sets(config(folder))["hash"]


def test_one_byte_of_the_annotations_changes_the_data_hash(data):
    before = data_hash_of(data)
    assert data_hash_of(data) == before
    file = data / "annotations.json"
    content, stat = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert data_hash_of(data) != before


def test_a_new_or_resized_image_changes_the_hash_and_a_copy_does_not(data, tmp_path):
    before = data_hash_of(data)
    shutil.copytree(data, tmp_path / "copy")
    assert data_hash_of(tmp_path / "copy") == before
    image = next((data / "images").iterdir())
    image.write_bytes(image.read_bytes() + b"0")
    assert data_hash_of(data) != before
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "copy", data)
    (data / "images/new.jpg").write_bytes(b"")
    assert data_hash_of(data) != before


def test_annotations_in_a_folder_count_by_content(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.xml").write_text("<a>1</a>")
    (tmp_path / "b.jpg").write_bytes(b"123")
    before = hash_path(tmp_path)
    assert (before["files"], before["bytes"], before["notes"]) == (2, 11, ["images count by name and size"])
    (tmp_path / "b.jpg").write_bytes(b"124")
    assert hash_path(tmp_path) == before
    (tmp_path / "sub/a.xml").write_text("<a>2</a>")
    assert hash_path(tmp_path)["hash"] != before["hash"]
    (tmp_path / "sub/a.xml").rename(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text("<a>1</a>")
    assert hash_path(tmp_path)["hash"] != before["hash"]


def test_limits_are_noted(tmp_path, monkeypatch):
    for index in range(4):
        (tmp_path / f"{index}.txt").write_text("0" * 10)
    monkeypatch.setattr(data_hash, "_MAX_BYTES", 25)
    monkeypatch.setattr(data_hash, "_MAX_FILES", 3)
    before = hash_path(tmp_path)
    assert "annotation files beyond the first 25 bytes count by name and size" in before["notes"]
    assert "files beyond the first 3, in the order of their names, do not count" in before["notes"]
    (tmp_path / "2.txt").write_text("1" * 10)
    assert hash_path(tmp_path)["hash"] == before["hash"]
    (tmp_path / "1.txt").write_text("1" * 10)
    assert hash_path(tmp_path)["hash"] != before["hash"]


def test_data_sets_registered_with_detectron2(data):
    names = "manifest_of_a_function", "manifest_of_a_json"
    for name in names:
        DatasetCatalog.register(name, list)
    MetadataCatalog.get(names[1]).set(json_file=str(data / "annotations.json"), image_root=str(data / "images"))
    try:
        cfg = OmegaConf.create(
            {"dataloader": {"train": {"dataset": {"names": list(names)}}, "test": {"dataset": {"names": "no_such"}}}}
        )
        assert data_set_names(cfg) == [*names, "no_such"]
        sets = hash_data_sets(cfg)["sets"]
        assert sets[names[0]] == {"hash": None, "paths": {}, "notes": ["its files are unknown"]}
        assert sets[names[1]]["paths"].keys() == {"json_file", "image_root"}
        assert "no data set 'no_such' is registered" in sets["no_such"]["notes"][0]
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_a_large_folder_takes_less_than_a_second(tmp_path):
    for folder in range(10):
        (tmp_path / str(folder)).mkdir()
        for index in range(500):
            (tmp_path / str(folder) / f"{index}.jpg").touch()
    start = time.process_time()
    assert hash_path(tmp_path)["files"] == 5000
    assert time.process_time() - start < 1
