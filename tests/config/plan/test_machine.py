"""This machine, and weights that Detectron2 has downloaded before."""

from pathlib import Path

from maskrcnn_ext.config.plan.machine import COCO, TIMM_LITE, Machine, inspect_machine


def test_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    found = inspect_machine()
    assert found.cores >= 1
    assert COCO not in found.weights
    cached = tmp_path / "detectron2" / COCO.removeprefix("detectron2://")
    cached.parent.mkdir(parents=True)
    Path(cached).touch()
    assert COCO in inspect_machine().weights


def test_timms_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert TIMM_LITE not in inspect_machine().weights
    folder = tmp_path / "models--timm--tf_efficientnet_lite0.in1k"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc/model.safetensors").touch()
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    assert TIMM_LITE in inspect_machine().weights


def test_the_description():
    assert Machine(cores=4).description == "a CPU of 4 cores without bf16"
    assert Machine(gpu_memory=24 * 2**30).description == "a GPU of 24 GiB"
