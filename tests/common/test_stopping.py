"""The first signal asks to stop; a second Ctrl-C does not wait."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskrcnn_ext.common.stopping import Stopped, stoppable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_raises_past_handlers_of_errors(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=number.name), stoppable():  # noqa: PT012
        try:
            signal.raise_signal(number)
        except Exception:
            pytest.fail("caught as an error")
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts_the_end_and_a_second_sigterm_does_not():
    with pytest.raises(KeyboardInterrupt) as caught, stoppable():  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
    assert type(caught.value) is KeyboardInterrupt


def test_other_threads_are_left_alone():
    def work():
        with stoppable():
            return 1

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == 1
