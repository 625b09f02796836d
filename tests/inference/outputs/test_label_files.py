"""Predictions for label tools come back through the readers of their formats."""

import json

import numpy as np
import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.cvat import read_cvat
from maskrcnn_ext.data.formats.label_studio import read_label_studio
from maskrcnn_ext.data.formats.labelme import read_labelme
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.writers.outlines import decode
from maskrcnn_ext.inference.outputs.label_files import LABEL_KINDS, predicted_records, write_label_files
from tests.helpers.predicted_images import JOB_MASK


def test_records_are_above_the_threshold_and_an_empty_mask_is_a_box(job):
    data = predicted_records(job, 0.5)
    assert (data.classes, data.category_ids) == (["leaf", "stem"], [7, 3])
    masked, box = data.images[0].annotations
    assert (masked.category, masked.score, masked.box) == (1, 0.75, (10, 5, 30, 15))
    assert (box.segmentation, box.box, box.score) == (None, (1, 2, 4, 6), 0.5)
    assert data.images[1].annotations == []


def test_every_tool_reads_its_file(job):
    assert not write_label_files(predicted_records(job, 0.5), job, LABEL_KINDS)
    images = job / "images"
    sets = [
        read_cvat(job / "cvat/annotations.xml", images),
        read_label_studio(job / "label-studio/tasks.json", images, predictions=True),
        load_dataset(f"coco:{job}/coco/annotations.json@{images}"),
        read_labelme(job / "labelme"),
    ]
    for data in sets:
        record = next(record for record in data.images if record.file_name.endswith("a.png"))
        masked = next(one for one in record.annotations if one.segmentation)
        assert data.classes[masked.category] == "stem"
        np.testing.assert_array_equal(decode(masked.segmentation, 40, 60), JOB_MASK)
    assert [len(data.images) for data in sets] == [2, 2, 2, 2]
    assert [record.image_id for record in sets[0].images] == ["a.png", "sub/b.png"]
    assert json.loads((job / "labelme/b.json").read_text())["imagePath"] == str(images / "sub/b.png")


def test_parts_of_files_are_refused(job):
    data = predicted_records(job, 0.5)
    data.images[1].file_name = data.images[0].file_name
    with pytest.raises(InputError, match="several images are parts of it"):
        write_label_files(data, job, ["cvat"])
