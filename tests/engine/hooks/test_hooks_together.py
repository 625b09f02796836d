"""A small Mask R-CNN has the same losses with and without all hooks."""

import copy
import json

import pytest
import torch
from detectron2.config import instantiate
from detectron2.engine import hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import JSONWriter

from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.hooks.ema import EMA
from maskrcnn_ext.engine.hooks.evaluation import Evaluation
from maskrcnn_ext.engine.hooks.image_panel import ImagePanel, load_panel_data
from maskrcnn_ext.engine.hooks.lr_finder import LRFinder
from maskrcnn_ext.engine.hooks.model_selection import Best, EarlyStopping
from maskrcnn_ext.engine.hooks.validation_loss import ValidationLoss, build_validation_loader
from maskrcnn_ext.engine.preserved_model import preserved_model
from maskrcnn_ext.engine.train_loop import Trainer
from tests.helpers.toy_training import same_weights, small_config, snapshot

pytestmark = pytest.mark.slow


@pytest.fixture
def cfg(shapes, tmp_path):
    cfg = small_config(f"coco:{shapes}@{shapes.parent / 'images'}")
    cfg.dataloader.train.total_batch_size = 2
    cfg.train.output_dir = str(tmp_path / "out")
    return cfg


def build(cfg, **options):
    torch.manual_seed(1)
    cfg = copy.deepcopy(cfg)
    cfg.dataloader.train.sampler = {
        "_target_": "detectron2.data.samplers.TrainingSampler",
        "size": 8,
        "seed": 3,
    }
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    return Trainer(model, instantiate(cfg.dataloader.train), instantiate(cfg.optimizer), **options)


def train(cfg, folder, *, with_hooks):
    folder.mkdir()
    trainer = build(cfg)
    model = trainer.model

    def evaluate():
        return inference_on_dataset(model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator))

    def evaluate_average():
        with preserved_model(model), ema.applied(model):
            return {f"ema/{task}": metrics for task, metrics in evaluate().items()}

    if with_hooks:
        ema = EMA(0.9)
        checkpointer = Checkpointer(model, str(folder), trainer=trainer)
        ours = [
            ema,
            ValidationLoss(2, model, lambda: build_validation_loader(cfg)),
            Evaluation(2, evaluate),
            Evaluation(2, evaluate_average),
            ImagePanel(2, model, lambda: load_panel_data(cfg, 1), output_dir=str(folder)),
            Best(2, checkpointer, metric="validation_loss/total_loss", mode="min"),
            EarlyStopping(2, metric="ema/bbox/AP", patience=9),
        ]
    trainer.register_hooks(ours if with_hooks else [Evaluation(2, evaluate)])
    trainer.register_hooks([hooks.PeriodicWriter([JSONWriter(str(folder / "metrics.json"), window_size=1)], period=1)])
    seed_all_rng(2)
    trainer.train(0, 4)
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return lines, snapshot(model), torch.get_rng_state()


def test_the_losses_are_those_without_hooks(cfg, tmp_path):
    plain, plain_weights, plain_random = train(cfg, tmp_path / "plain", with_hooks=False)
    lines, weights, random = train(cfg, tmp_path / "hooks", with_hooks=True)
    assert len(lines) == len(plain) == 5
    for line, expected in zip(lines, plain, strict=True):
        names = [name for name in expected if "loss" in name]
        assert [line[name] for name in names] == [expected[name] for name in names]
    assert same_weights(weights, plain_weights)
    assert torch.equal(random, plain_random)
    assert [line["iteration"] for line in lines if "validation_loss/loss_mask" in line] == [1, 4]
    assert {"ema/bbox/AP", "bbox/AP"} <= lines[1].keys()
    assert (tmp_path / "hooks/model_best.pth").is_file()
    assert sorted(file.name for file in (tmp_path / "hooks/panels").iterdir()) == ["0000001.png", "0000003.png"]


def test_the_learning_rate_finder_on_a_mask_rcnn(cfg, tmp_path):
    finder = LRFinder(lowest=1e-6, highest=100.0, steps=16, output_dir=str(tmp_path))
    trainer = build(cfg, guard=finder)
    trainer.register_hooks([finder])
    trainer.train(0, 16)
    assert "diverges" in trainer.stop_reason
    assert (tmp_path / "lr_finder.png").is_file()
