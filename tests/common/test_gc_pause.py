"""The garbage collector pauses for a block, and is as it was afterwards."""

import gc

import pytest

from maskrcnn_ext.common.gc_pause import gc_paused


def test_the_collector_pauses_and_resumes_even_after_an_error():
    with pytest.raises(ZeroDivisionError), gc_paused():  # noqa: PT012
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with gc_paused(), gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
