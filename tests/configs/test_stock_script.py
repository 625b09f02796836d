"""Every config trains two iterations and evaluates under the unedited tools/lazyconfig_train_net.py."""

import importlib.util
import json
import math

import pytest
from detectron2 import model_zoo
from detectron2.engine import default_argument_parser
from test_zoo import NAMES

from maskrcnn_ext import get_config
from maskrcnn_ext.zoo import config_path

HOOK = {"DETECTRON2_ENV_MODULE": "maskrcnn_ext.env"}
RESIZE = ("short_edge_length", "max_size", "target_height", "target_width")


def small(name: str, people: str, output_dir: str) -> list[str]:
    """Overrides that make a config small enough for a test and leave its parts as they are."""
    cfg = get_config(name)
    overrides = {
        "dataloader.train.dataset.names": people,
        "dataloader.test.dataset.names": people,
        "dataloader.train.total_batch_size": 2,
        "dataloader.train.num_workers": 0,
        "dataloader.test.num_workers": 0,
        "model.roi_heads.num_classes": 1,
        "model.roi_heads.batch_size_per_image": 16,
        "model.proposal_generator.post_nms_topk": "[50,20]",
        "train.output_dir": output_dir,
        "train.device": "cpu",
        # Random weights under a frozen BatchNorm amplify what they see: small pixels and steps keep the numbers finite.
        "model.pixel_std": "[10000,10000,10000]",
        "optimizer.lr": 1e-7,
        "train.init_checkpoint": "''",
        "train.amp.enabled": False,
        "train.seed": 1,
        "train.max_iter": 2,
        "train.eval_period": 2,
        "train.log_period": 1,
    }
    if "net" in cfg.model.backbone:  # a ViT
        overrides.update({"model.backbone.net.img_size": 128, "model.backbone.square_pad": 128})
    for split in ("train", "test"):
        for index, augmentation in enumerate(cfg.dataloader[split].mapper.augmentations):
            for key in RESIZE:
                if key in augmentation:
                    overrides[f"dataloader.{split}.mapper.augmentations.{index}.{key}"] = 96
            if "crop_size" in augmentation:
                overrides[f"dataloader.{split}.mapper.augmentations.{index}.crop_size"] = "[64,64]"
    return [f"{key}={value}" for key, value in overrides.items()]


@pytest.fixture(scope="module")
def stock(stock_script):
    spec = importlib.util.spec_from_file_location("stock_lazyconfig_train_net", stock_script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_config_trains_and_evaluates(name, stock, people, tmp_path):
    arguments = ["--config-file", str(config_path(name)), "--num-gpus", "0", *small(name, people, str(tmp_path))]
    stock.main(default_argument_parser().parse_args(arguments))
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert len(losses) == 2
    assert all(0 < loss < math.inf for loss in losses)
    assert (tmp_path / "model_final.pth").is_file()
    assert any("bbox/AP" in line for line in lines)


def test_detectron2s_own_config_takes_a_coco_file_by_override(stock, people, tmp_path):
    """Contract 4 of the data: one override of the target and one of the name, no registration."""
    config = model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    target = [f"dataloader.{split}.dataset._target_=maskrcnn_ext.get_dataset_dicts" for split in ("train", "test")]
    arguments = [
        "--config-file",
        config,
        "--num-gpus",
        "0",
        *target,
        *small("mask_rcnn_r50_fpn_1x", people, str(tmp_path)),
    ]
    stock.main(default_argument_parser().parse_args(arguments))
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert any("total_loss" in line for line in lines)
    assert any("bbox/AP" in line for line in lines)


@pytest.mark.slow
@pytest.mark.realdata
def test_real_nuclei_by_name_through_the_hook(real_data, stock_script, run_python, tmp_path):
    overrides = ["train.device=cpu", "train.max_iter=2", "train.eval_period=2", "train.log_period=1"]
    overrides += ["model.proposal_generator.post_nms_topk=[100,50]", f"train.output_dir={tmp_path / 'run'}"]
    config = config_path("domains/nuclei.py")
    done = run_python(stock_script, "--config-file", config, "--num-gpus", "0", *overrides, env=HOOK)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    assert any("total_loss" in line for line in lines)
    assert any("bbox/AP" in line for line in lines)
