"""Steps whose weights are dropped change nothing for the training that follows."""

import pytest
import torch

from maskrcnn_ext.config.zoo import load_config
from maskrcnn_ext.engine.short_runs import _limit_detections, measure_speed
from maskrcnn_ext.engine.training_data import read_training_data
from tests.helpers.small_run import small_run, spec_of
from tests.helpers.toy_training import random_states, same_states


def test_the_speed_is_measured_and_the_random_state_kept(shapes, tmp_path):
    cfg = load_config("domains/shapes.py", small_run(spec_of(shapes), tmp_path, **{"train.device": "cpu"}))
    data = read_training_data(cfg)
    torch.manual_seed(5)
    before = random_states()
    speed = measure_speed(cfg, data, 0.1)
    assert speed.step > 0
    assert speed.evaluation > 0
    assert same_states(random_states(), before)
    assert cfg.optimizer.params.model is None


@pytest.mark.parametrize(("objects", "before", "after"), [(2.5, 100, 8), (2.5, 5, 5), (2.5, -1, -1), (0, 100, 1)])
def test_an_evaluation_is_timed_with_the_detections_of_a_trained_model(objects, before, after):
    """An untrained model finds as many objects as it may, here 100."""
    predictor = torch.nn.Linear(1, 1)
    predictor.test_topk_per_image = before
    records = [{"annotations": [{}] * int(2 * objects)}, {}]
    _limit_detections(torch.nn.Sequential(predictor), records)
    assert predictor.test_topk_per_image == after
