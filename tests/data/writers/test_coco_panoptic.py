"""The panoptic writer: a pixel belongs to the last object that covers it."""

import numpy as np

from maskrcnn_ext.data.formats.coco_panoptic import read_coco_panoptic
from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.writers import find_writer
from maskrcnn_ext.ops.rle import encode_mask
from tests.helpers.written_sets import assert_same, make_set, square


def test_later_segments_cover_earlier_ones(tmp_path):
    data = make_set(tmp_path, [square(1, 1, 8), square(5, 5, 8), square(30, 20, 3), square(29, 19, 9)])
    lost = find_writer("coco_panoptic")(data, tmp_path / "out", link=False)
    assert lost == {
        "pixels that two objects share, which the later one keeps": 16 + 9,
        "objects left out because none of their pixels is visible": 1,
    }
    after = read_coco_panoptic(tmp_path / "out/panoptic.json", tmp_path / "out/images")
    first = np.zeros((40, 60), bool)
    first[1:9, 1:9], first[5:13, 5:13] = True, False
    data.images[0].annotations[0] = Annotation(0, (1, 1, 9, 9), encode_mask(first))
    del data.images[0].annotations[2]
    assert_same(data, after, lowest=1.0)
