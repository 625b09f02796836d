"""The YOLO writer: boxes, and objects that the format cannot express."""

import numpy as np
import pytest

from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.writers import find_writer
from tests.helpers.written_sets import READ, make_set, square


@pytest.mark.parametrize("format", ["yolo", "labelme"])
def test_boxes_alone_are_restored_as_boxes(tmp_path, format):
    data = make_set(tmp_path, [Annotation(0, (1.5, 2.0, 10.25, 12.0)), Annotation(0, (0, 0, 60, 40))])
    assert not find_writer(format)(data, tmp_path / "out", link=False)
    after = load_dataset(READ[format].format(tmp_path / "out")).images[0].annotations
    np.testing.assert_allclose([a.box for a in after], [a.box for a in data.images[0].annotations], atol=1e-4)


def test_yolo_counts_losses(tmp_path):
    keypoints = [1.5, 1.5, 2]
    data = make_set(
        tmp_path,
        [
            Annotation(0, (1, 1, 9, 9), crowd=True),
            Annotation(0, (1, 1, 9, 9), keypoints=keypoints),
            Annotation(0, (70, 1, 90, 9), [[70, 1, 90, 1, 90, 9]]),
            square(5, 5, 10),
        ],
    )
    lost = find_writer("yolo")(data, tmp_path / "out", link=False)
    assert sorted(lost.values()) == [1, 1, 1, 1]
    assert [text.split()[0] for text in sorted(lost)] == ["boxes", "crowds", "keypoints", "objects"]
    assert len(load_dataset(READ["yolo"].format(tmp_path / "out")).images[0].annotations) == 2
