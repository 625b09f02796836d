"""The loop state of a checkpoint restores random numbers and data, and evaluates what the run had not evaluated."""

import random

import pytest
import torch
from detectron2.utils.events import EventStorage

from maskrcnn_ext.common.random_state import get_random_state
from maskrcnn_ext.engine.resume.loader import ResumableLoader
from maskrcnn_ext.engine.resume.state import LoopState, Restore
from tests.helpers.toy_training import Results, toy_trainer


def test_a_new_run_collects_the_state_of_its_process():
    state = LoopState(None)
    state.before_loader()
    state.set_position(ResumableLoader([[1]]))
    state.restore()
    (rank,) = state.collect()["loop"]["ranks"]
    assert rank.keys() == {"random", "before_loader", "data"}
    assert rank["data"] == {}


def test_a_resumed_run_builds_its_loader_from_the_same_random_state(caplog):
    first = LoopState(None)
    first.before_loader()
    expected = random.random(), torch.rand(1).item()
    first.set_position(ResumableLoader([[1]]))
    saved = first.collect()["loop"]
    after = random.random()

    random.seed(99)
    again = LoopState(saved)
    again.before_loader()
    assert (random.random(), torch.rand(1).item()) == expected
    again.set_position(ResumableLoader([[1]]))
    assert "but with other random numbers" in caplog.text, "a list has no position"
    again.restore()
    assert random.random() == after


def test_a_checkpoint_of_more_processes_skips_the_images_seen(caplog):
    state = get_random_state()
    rank = {"random": state, "before_loader": state, "data": {"drawn": [4, 2]}}
    loop = LoopState({"ranks": [rank, rank]})
    loop.before_loader()
    loader = ResumableLoader([[1]])
    loop.set_position(loader)
    assert loader._position.drawn == [12]
    assert "another number of processes" in caplog.text


@pytest.mark.parametrize(
    ("start", "period", "evaluated"), [(4, 2, [3]), (3, 2, []), (0, 2, []), (4, 0, []), (6, 2, [])]
)
def test_an_evaluation_that_was_due_is_made_up_for(start, period, evaluated):
    seen = []

    class Record(Results):
        def at_evaluation(self):
            seen.append(self.trainer.iter)

    record = Record(period, [])
    trainer = toy_trainer([record, Restore(LoopState(None), at_evaluation=[record], period=period)])
    trainer.start_iter, trainer.max_iter = start, 6
    with EventStorage(start) as trainer.storage:
        trainer.before_train()
    assert seen == evaluated
