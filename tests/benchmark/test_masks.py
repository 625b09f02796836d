"""Mask probabilities to RLEs: both sides return the same."""

from maskrcnn_ext.benchmark.masks import PASTES, paste_side
from maskrcnn_ext.ops.rle import with_text_counts


def test_both_sides_return_the_same_rles():
    stock, ours = (paste_side(name, 5, (80, 100), (10, 60))() for name in PASTES)
    assert len(ours) == 5
    assert stock == [with_text_counts(rle) for rle in ours]  # COCO's counts are text or bytes
