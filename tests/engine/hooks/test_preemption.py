"""A signal stops training after the present iteration, and the previous handlers are restored."""

import os
import signal

import pytest
from detectron2.engine import hooks

from maskrcnn_ext.engine.hooks.preemption import Preemption
from maskrcnn_ext.engine.worker_signals import SIGNALS
from tests.helpers.toy_training import toy_trainer


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_after_the_iteration(number):
    before = {number: signal.getsignal(number) for number in SIGNALS}
    preemption = Preemption()
    send = hooks.CallbackHook(after_step=lambda trainer: os.kill(os.getpid(), number) if trainer.iter == 1 else None)
    trainer = toy_trainer([send, preemption])
    with preemption.handled():
        trainer.train(0, 5)
    assert (trainer.iter, preemption.received) == (1, number)
    assert trainer.stop_reason == f"{number.name} received; --resume continues from here"
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_without_a_signal_training_completes():
    preemption = Preemption()
    trainer = toy_trainer([preemption])
    trainer.train(0, 2)
    assert (trainer.iter, preemption.received, trainer.stop_reason) == (2, None, None)


def test_a_second_interrupt_stops_at_once():
    preemption = Preemption()
    twice = [hooks.CallbackHook(before_step=lambda _: os.kill(os.getpid(), signal.SIGINT)) for _ in range(2)]
    trainer = toy_trainer([*twice, preemption])
    with pytest.raises(KeyboardInterrupt), preemption.handled():
        trainer.train(0, 5)
    assert trainer.iter == 0
