"""ImplicitPointRendMaskHead: the size of its first mask."""

import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.implicit_point_rend import ImplicitPointRendMaskHead
from tests.helpers.point_heads import build


def test_subdivision_num_points_must_be_a_square_number():
    with pytest.raises(InputError, match="subdivision_num_points=784"):
        build(ImplicitPointRendMaskHead, subdivision_num_points=800)
