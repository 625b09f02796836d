"""The manifest: what it holds, and that its hashes change with what they are of, and with nothing else."""

import json
import os
import shutil
import subprocess
import time

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

from maskrcnn_ext import get_config
from maskrcnn_ext.engine import data_hash
from maskrcnn_ext.engine.data_hash import data_set_names, hash_data_sets, hash_path
from maskrcnn_ext.engine.manifest import config_hash, finish_manifest, make_manifest, write_manifest


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


def test_a_run_is_described(data, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr("sys.argv", ["train_net.py", "--config-file", "a.py"])
    path = tmp_path / "out/manifest.json"
    write_manifest(config(data), path, world_size=2)
    first = json.loads(path.read_text())
    assert first["command"] == ["train_net.py", "--config-file", "a.py"]
    assert first["world_size"] == 2
    assert {"python", "torch", "torchvision", "detectron2", "numpy", "maskrcnn_ext", "cuda"} <= first["versions"].keys()
    assert first["machine"]["cores"] >= 1
    assert first["machine"]["memory_bytes"] > 2**28
    assert first["environment"]["OMP_NUM_THREADS"] == "3"
    assert first["earlier"] == []
    assert "ended" not in first
    finish_manifest(path, "finished")
    done = json.loads(path.read_text())
    assert done["status"] == "finished"
    assert done["started"] <= done["ended"]
    assert {key: done[key] for key in first} == first
    write_manifest(config(data), path)
    again = json.loads(path.read_text())
    write_manifest(config(data), path)
    third = json.loads(path.read_text())
    assert [run["status"] for run in again["earlier"]] == ["finished"]
    assert [run.get("status") for run in third["earlier"]] == ["finished", None]
    assert [file.name for file in path.parent.iterdir()] == ["manifest.json"]


def test_a_manifest_that_was_cut_off_is_replaced(data, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"started": "2')
    write_manifest(config(data), path)
    assert json.loads(path.read_text())["earlier"] == []


def test_the_commit_and_whether_files_differ(tmp_path, monkeypatch):
    def git(*arguments):
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        return subprocess.run(
            ["git", *settings, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.chdir(tmp_path)
    empty = OmegaConf.create({})
    assert make_manifest(empty)["git"] is None
    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "a")
    found = make_manifest(empty)["git"]
    assert found == {"root": str(tmp_path.resolve()), "commit": git("rev-parse", "HEAD").strip(), "dirty": False}
    (tmp_path / "output").mkdir()
    (tmp_path / "output/b.txt").write_text("results")
    assert make_manifest(empty)["git"]["dirty"] is False
    (tmp_path / "a.py").write_text("2")
    assert make_manifest(empty)["git"]["dirty"] is True


def test_a_config_hash_knows_values_and_not_their_order():
    cfg = get_config("domains/shapes.py")
    reordered = OmegaConf.create(dict(reversed(list(cfg.items()))), flags={"allow_objects": True})
    moved = get_config("domains/shapes.py")
    moved.train.output_dir = "/elsewhere"
    assert (
        config_hash(cfg) == config_hash(reordered) == config_hash(moved) == config_hash(get_config("domains/shapes.py"))
    )
    changed = get_config("domains/shapes.py")
    changed.optimizer.lr = 0.5
    assert config_hash(changed) != config_hash(cfg)
    other = get_config("domains/shapes.py")
    other.optimizer._target_ = "torch.optim.SGD"
    assert config_hash(other) != config_hash(cfg)


def test_a_config_hash_is_the_same_in_another_process(run_python):
    imports = "from maskrcnn_ext import get_config; from maskrcnn_ext.engine.manifest import config_hash"
    code = f"{imports}; print(config_hash(get_config('mask_rcnn_r50_c4_1x')))"
    done = run_python("-c", code, env={"PYTHONHASHSEED": "7"})
    assert done.stdout.strip() == config_hash(get_config("mask_rcnn_r50_c4_1x")), done.stderr


def test_one_byte_of_the_annotations_changes_the_data_hash(data):
    before = data_hash_of(data)
    assert data_hash_of(data) == before
    file = data / "annotations.json"
    content, stat = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert data_hash_of(data) != before


def test_an_image_more_or_of_another_size_changes_it_and_a_copy_does_not(data, tmp_path):
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
    monkeypatch.setattr(data_hash, "_MOST_BYTES", 25)
    monkeypatch.setattr(data_hash, "_MOST_FILES", 3)
    before = hash_path(tmp_path)
    assert "annotation files beyond the first 25 bytes count by name and size" in before["notes"]
    assert "files beyond the first 3, in the order of their names, do not count" in before["notes"]
    (tmp_path / "2.txt").write_text("1" * 10)
    assert hash_path(tmp_path)["hash"] == before["hash"]
    (tmp_path / "1.txt").write_text("1" * 10)
    assert hash_path(tmp_path)["hash"] != before["hash"]


def test_data_that_another_program_has_registered(data):
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
        assert sets[names[0]] == {"hash": None, "paths": {}, "notes": ["no file or folder of it is known"]}
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
