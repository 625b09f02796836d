"""The GeoJSON writer: holes, parts and boxes, and the scores of predictions."""

import json

import numpy as np
import pytest
import shapely

from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.writers import find_writer
from maskrcnn_ext.ops.rle import encode_mask
from tests.helpers.written_sets import make_set


def test_holes_parts_and_scores_are_kept_and_boxes_are_counted(tmp_path):
    mask = np.zeros((40, 60), bool)
    mask[2:10, 2:10] = mask[20:30, 30:50] = True
    mask[4:6, 4:6] = False
    bow = [5.0, 5, 25, 25, 25, 5, 5, 25]  # crosses itself, so it is written as the outline of its pixels
    objects = [Annotation(0, (2, 2, 50, 30), encode_mask(mask), score=0.5), Annotation(0, (5, 5, 25, 25), [bow])]
    data = make_set(tmp_path, [*objects, Annotation(0, (1, 1, 9, 9))])
    lost = find_writer("geojson")(data, tmp_path / "out", link=False)
    assert lost == {"boxes written as rectangles: GeoJSON has outlines only": 1}
    features = json.loads((tmp_path / "out/labels/a.geojson").read_text())["features"]
    outlines = [shapely.geometry.shape(each["geometry"]) for each in features]
    assert all(outline.is_valid for outline in outlines)
    assert [outline.area for outline in outlines] == [64 - 4 + 200, pytest.approx(200, rel=0.15), 64]
    assert features[0]["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "thing"},
        "measurements": {"score": 0.5},
    }
