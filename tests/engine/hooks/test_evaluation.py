"""Evaluations run at the iterations of Detectron2's EvalHook, and their results become scalars."""

import json

import pytest
from detectron2.engine import hooks
from detectron2.utils.events import JSONWriter

from maskrcnn_ext.engine.hooks.evaluation import Evaluation, EvaluationHook, EvaluationWriter, last_iteration
from tests.helpers.toy_training import toy_trainer


class Record(EvaluationHook):
    def __init__(self, period):
        super().__init__(period)
        self.iterations = []

    def at_evaluation(self):
        self.iterations.append(last_iteration(self.trainer))


@pytest.mark.parametrize(("period", "expected"), [(2, [1, 3, 4]), (5, [4]), (0, [4]), (1, [0, 1, 2, 3, 4])])
def test_runs_when_detectron2_evaluates(period, expected):
    record, theirs = Record(period), []
    trainer = toy_trainer([record])
    trainer.register_hooks([hooks.EvalHook(period, lambda: theirs.append(last_iteration(trainer)))])
    trainer.train(0, 5)
    assert record.iterations == theirs == expected


def test_a_stopped_run_is_not_evaluated_at_its_end():
    record = Record(0)
    stop = hooks.CallbackHook(after_step=lambda trainer: trainer.stop("enough"))
    toy_trainer([stop, record]).train(0, 5)
    assert record.iterations == []


def test_results_become_scalars():
    results = iter([{"segm": {"AP": 30.0, "AP50": 50}}, {}])
    trainer = toy_trainer([Evaluation(2, lambda: next(results))])
    trainer.train(0, 4)
    latest = trainer.storage.latest()
    assert (latest["segm/AP"], latest["segm/AP50"]) == ((30.0, 1), (50.0, 1))


def test_results_between_two_log_periods_are_written(tmp_path):
    values = iter([10.0, 20.0, 30.0, 40.0])
    writers = [JSONWriter(str(tmp_path / "metrics.json"))]
    evaluation = Evaluation(2, lambda: {"segm": {"AP": next(values)}})
    toy_trainer([evaluation, EvaluationWriter(2, writers), hooks.PeriodicWriter(writers, 5)]).train(0, 8)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [(line["iteration"], line["segm/AP"]) for line in lines if "segm/AP" in line] == [
        (1, 10.0),
        (3, 20.0),
        (5, 30.0),
        (8, 40.0),
    ]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [1, 3, 4, 5, 7]
