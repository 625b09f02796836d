"""The parts of a training have the device, the memory format and the batch of its config."""

import pytest
import torch
from detectron2.structures import Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

from maskrcnn_ext.config.zoo import load_config
from maskrcnn_ext.engine.building import batch_size, build_model, build_model_and_optimizer
from maskrcnn_ext.engine.main import main
from tests.helpers.small_run import small_run, spec_of


def test_a_cuda_config_trains_on_the_cpu_without_cuda(shapes, tmp_path, caplog):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    arguments = small_run(spec_of(shapes), tmp_path, **{"train.max_iter": 1, "train.device": "cuda"})
    assert main(["--config-file", "domains/shapes.py", *arguments]) == 0
    assert "this machine has no CUDA device: training on the CPU" in caplog.text


def test_the_settings_of_the_model(shapes, tmp_path):
    more = {"train.channels_last": True, "train.freeze": "[backbone.*]", "train.accumulate": 3, "train.device": "cpu"}
    cfg = load_config("domains/shapes.py", small_run(spec_of(shapes), tmp_path, **more))
    model, optimizer = build_model_and_optimizer(cfg)
    assert model.backbone.fpn_output2.weight.is_contiguous(memory_format=torch.channels_last)
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert trained == {id(p) for name, p in model.named_parameters() if not name.startswith("backbone.")}
    assert batch_size(cfg) == 2 * 3


def test_a_keypoint_head_has_the_loss_of_contiguous_memory_in_channels_last():
    """Detectron2's loss views the logits as rows, which channels_last memory does not allow."""
    instances = Instances(
        (64, 64), proposal_boxes=Boxes(torch.tensor([[4.0, 4.0, 40.0, 60.0], [0.0, 8.0, 32.0, 32.0]]))
    )
    instances.gt_keypoints = Keypoints(torch.tensor([[[9.0, 9.0, 2.0]] * 17, [[20.0, 20.0, 2.0]] * 17]))
    features = torch.randn(2, 128, 14, 14)
    losses = []
    for channels_last in ("false", "true"):
        overrides = [f"train.channels_last={channels_last}", "train.device=cpu"]
        torch.manual_seed(0)
        head = build_model(load_config("keypoint_rcnn_r18_fpn_scratch.py", overrides)).roi_heads.keypoint_head
        if channels_last == "true":
            features = features.contiguous(memory_format=torch.channels_last)
        with EventStorage():
            losses.append(head(features, [instances])["loss_keypoint"])
    torch.testing.assert_close(*losses)
