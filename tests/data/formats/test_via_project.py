"""Projects of VIA 3 read as files of VIA 2 do."""

import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.via import read_via


@pytest.fixture
def write_project(tmp_path):
    """Writes a project of VIA 3 with one image and records of metadata."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))

    def write(*records, fids=("1",)):
        project = {
            "project": {"pid": "p", "vid_list": ["1"]},
            "attribute": {
                "1": {"aname": "kind", "type": 4, "options": {"0": "cat", "1": "dog"}},
                "2": {"aname": "marks", "type": 2, "options": {"0": "old", "1": "wet"}},
            },
            "file": {"1": {"fid": 1, "fname": "a.png", "type": 2, "loc": 1, "src": ""}},
            "view": {"1": {"fid_list": list(fids)}},
            "metadata": {
                f"1_{index}": {"vid": "1", "flg": 0, "z": [], **record} for index, record in enumerate(records)
            },
        }
        file = tmp_path / "via3.json"
        file.write_text(json.dumps(project))
        return file

    return write


def test_version_3_reads_as_version_2(write_project, tmp_path):
    shapes = [[7, 10, 5, 40.5, 15, 20, 35.25], [2, 5, 6, 10, 20], [3, 30, 20, 10], [4, 30, 20, 12, 6], [1, 8, 8]]
    fields = [
        {"name": "polygon", "all_points_x": [10, 40.5, 20], "all_points_y": [5, 15, 35.25]},
        {"name": "rect", "x": 5, "y": 6, "width": 10, "height": 20},
        {"name": "circle", "cx": 30, "cy": 20, "r": 10},
        {"name": "ellipse", "cx": 30, "cy": 20, "rx": 12, "ry": 6},
        {"name": "point", "cx": 8, "cy": 8},
    ]
    kinds = ["dog", "cat", "cat", "dog", "cat"]
    records = [{"xy": xy, "av": {"1": str(int(kind == "dog"))}} for xy, kind in zip(shapes, kinds, strict=True)]
    whole_image = {"xy": [], "av": {"2": "1"}}
    found = read_via(write_project(*records, whole_image), tmp_path, attribute="kind")
    regions = [
        {"shape_attributes": shape, "region_attributes": {"kind": kind}}
        for shape, kind in zip(fields, kinds, strict=True)
    ]
    file = tmp_path / "via2.json"
    file.write_text(json.dumps({"a.png9": {"filename": "a.png", "regions": regions}}))
    assert found == read_via(file, tmp_path, attribute="kind")
    assert found.classes == ["cat", "dog"]
    assert len(found.images[0].annotations) == 4


def test_check_boxes_of_version_3_are_named(write_project, tmp_path):
    records = [{"xy": [2, 5, 6, 10, 20], "av": {"2": value}} for value in ("0", "1")]
    assert read_via(write_project(*records), tmp_path, attribute="marks").classes == ["old", "wet"]
    both = {"xy": [2, 5, 6, 10, 20], "av": {"2": "0,1"}}
    with pytest.raises(InputError, match="class 'old, wet'"):
        read_via(write_project(both), tmp_path, attribute="marks")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"xy": [8, 1, 2, 3, 4], "av": {}}, r"metadata '1_0': shape \[8, 1, 2, 3, 4\], expected a polygon"),
        ({"xy": [2, 1, 2, 3], "av": {}}, "expected a polygon, rectangle"),
        ({"xy": [2, 1, 2, 3, 4], "av": {"7": "0"}}, "metadata '1_0': broken, or refers to a missing record"),
        ({"vid": "9", "xy": [2, 1, 2, 3, 4], "av": {}}, "refers to a missing record"),
        ({"z": [1.5], "xy": [2, 1, 2, 3, 4], "av": {}}, "of a video: save its frames"),
    ],
)
def test_broken_projects_are_one_line(write_project, tmp_path, record, message):
    with pytest.raises(InputError, match=message):
        read_via(write_project(record), tmp_path)
    with pytest.raises(InputError, match="view '1' shows no single file"):
        read_via(write_project(fids=("1", "2")), tmp_path)
