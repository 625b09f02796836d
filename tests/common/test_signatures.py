"""Signatures with one more keyword."""

import inspect

from maskrcnn_ext import FastRPN, PartialROIHeads
from maskrcnn_ext.common.signatures import with_keyword


def test_a_keyword_comes_after_the_others_and_before_the_rest():
    def function(a, *args, b=1, **rest): ...

    assert str(with_keyword(function, "c", 2)) == "(a, *args, b=1, c=2, **rest)"
    assert str(with_keyword(lambda: None, "c", 2)) == "(*, c=2)"


def test_the_parts_of_the_package_have_it():
    for part in (FastRPN, PartialROIHeads):
        assert inspect.signature(part).parameters["ignore_threshold"].default == 0.5
    assert "batch_size_per_image" in inspect.signature(FastRPN).parameters
    assert "box_pooler" in inspect.signature(PartialROIHeads).parameters
