"""The manifest describes a run, and its config hash changes with the config only."""

import json
import shutil
import subprocess

import pytest
from omegaconf import OmegaConf

from maskrcnn_ext import get_config
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
    # This process has imported torch.
    assert done["cpu_seconds"] > 0.5
    assert 2**27 < done["peak_memory_bytes"] < 2**37
    assert {key: done[key] for key in first} == first
    write_manifest(config(data), path)
    again = json.loads(path.read_text())
    write_manifest(config(data), path)
    third = json.loads(path.read_text())
    assert [run["status"] for run in again["earlier"]] == ["finished"]
    assert [run.get("status") for run in third["earlier"]] == ["finished", None]
    assert [file.name for file in path.parent.iterdir()] == ["manifest.json"]


def test_a_truncated_manifest_is_replaced(data, tmp_path):
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


def test_a_config_hash_depends_on_values_and_not_on_their_order():
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
