"""The faults of items, and the others."""

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.reading_many import in_threads


def test_faults_of_items_are_collected_and_the_others_are_read():
    def read(number):
        if number % 2:
            raise InputError(f"item {number}")
        return number

    faults = []
    assert in_threads(read, range(5), faults) == [0, 2, 4]
    assert sorted(faults) == ["item 1", "item 3"]
    with pytest.raises(InputError, match="item 1"):
        in_threads(read, range(2))
