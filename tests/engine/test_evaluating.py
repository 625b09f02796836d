"""A config without an evaluator has no results, and no model is run for them."""

from maskrcnn_ext.config.zoo import load_config
from maskrcnn_ext.engine.evaluating import evaluate
from tests.helpers.small_run import small_run, spec_of


def test_no_evaluator_no_results(shapes, tmp_path):
    cfg = load_config("domains/shapes.py", small_run(spec_of(shapes), tmp_path))
    del cfg.dataloader.evaluator

    def model(_):
        raise AssertionError("nothing needs its predictions")

    assert evaluate(cfg, model) == {}
