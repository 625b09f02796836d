"""A value of an image that is indexed as objects are."""

import torch
from detectron2.structures import Instances

from maskrcnn_ext.ops.per_image import PerImage


class Value(PerImage):
    def __init__(self, count, value):
        super().__init__(count)
        self.value = value


def test_it_is_a_field_of_instances():
    image = Instances((4, 4), number=torch.arange(3), shared=Value(3, "a"))
    selections = (1, slice(1, None), torch.tensor([True, False, True]), torch.tensor([2, 0, 0, 1]), [0])
    for item, count in zip(selections, (1, 2, 2, 4, 1), strict=True):
        found = image[item].shared
        assert (len(found), found.value) == (count, "a")
    assert len(image.shared) == 3
    assert len(image.shared.repeat(0)) == 0
