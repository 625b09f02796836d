"""A config without an evaluator has no results, and no model is run for them; the best file has the weights of its metric."""

import pytest
import torch

from maskrcnn_ext.config.settings import add_missing_settings
from maskrcnn_ext.config.zoo import load_config
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.evaluating import evaluate, make_evaluation_hooks
from maskrcnn_ext.engine.hooks.ema import EMA
from tests.helpers.small_run import small_run, spec_of
from tests.helpers.toy_training import Results, toy_trainer


def test_no_evaluator_no_results(shapes, tmp_path):
    cfg = load_config("domains/shapes.py", small_run(spec_of(shapes), tmp_path))
    del cfg.dataloader.evaluator

    def model(_):
        raise AssertionError("nothing needs its predictions")

    assert evaluate(cfg, model) == {}


@pytest.mark.parametrize("metric", ["m", "ema/m"])
def test_the_best_file_has_the_weights_of_its_metric(metric, shapes, tmp_path):
    best = {"train.best.metric": metric, "train.eval_period": 3, "train.image_panel.count": 0}
    cfg = load_config("domains/shapes.py", small_run(spec_of(shapes), tmp_path, **best))
    add_missing_settings(cfg)
    del cfg.dataloader.evaluator
    ema, trainer = EMA(0.9), toy_trainer()
    checkpointer = Checkpointer(trainer.model, str(tmp_path), trainer=trainer)
    hooks = make_evaluation_hooks(cfg, trainer.model, checkpointer, ema)
    trainer.register_hooks([ema, Results(3, [{metric: 1.0}]), *hooks])
    trainer.train(0, 3)
    saved = torch.load(tmp_path / "model_best.pth", weights_only=True)["model"]
    expected = ema.state_dict()["average"] if metric == "ema/m" else dict(trainer.model.named_parameters())
    assert all(torch.equal(saved[name], value) for name, value in expected.items())
