"""The COCO writer keeps all contents of the records."""

import json

import numpy as np
import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.data.formats.records import Annotation
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.writers import find_writer
from maskrcnn_ext.ops.rle import encode_mask
from tests.helpers.written_sets import READ


def test_coco_keeps_everything(people, tmp_path):
    data = load_dataset(people)
    record = data.images[0]
    mask = np.zeros((record.height, record.width), bool)
    mask[3:9, 4:20] = True
    record.annotations = [
        record.annotations[0],
        Annotation(0, (4, 3, 20, 9), encode_mask(mask), crowd=True),
        Annotation(0, (1.5, 2.5, 7.25, 8)),
    ]
    find_writer("coco")(data, tmp_path / "out", link=False)
    after = load_dataset(READ["coco"].format(tmp_path / "out"))
    for one, other in zip(data.images, after.images, strict=True):
        for a, b in zip(one.annotations, other.annotations, strict=True):
            assert (a.category, a.segmentation, a.crowd) == (b.category, b.segmentation, b.crowd)
            np.testing.assert_allclose(a.box, b.box)
            np.testing.assert_allclose(a.keypoints or [], b.keypoints or [])
    assert (after.keypoints, after.skeleton) == (data.keypoints, data.skeleton)
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    crowd, box = content["annotations"][1:3]
    assert (crowd["iscrowd"], crowd["area"], box["area"]) == (1, 96, pytest.approx(5.75 * 5.5))
    assert content["annotations"][0]["num_keypoints"] == 17


def test_annotations_alone_have_names_below_the_common_folder(shapes, tmp_path, capsys):
    target = tmp_path / "all.json"
    assert main(["convert", f"coco:{shapes}@{shapes.parent / 'images'}", str(target), "--to", "coco"]) == 0
    spec = next(word for word in capsys.readouterr().err.split() if word.startswith("coco:"))
    assert spec == f"coco:{target}@{shapes.parent / 'images'}"
    assert len(load_dataset(spec).images) == 8
    assert list(tmp_path.iterdir()) == [target]
