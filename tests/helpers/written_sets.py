"""Small datasets for the writers, and how each format is read back."""

from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util

from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.ops.rle import encode_mask, segmentation_to_rle

READ = {
    "coco": "coco:{0}/annotations.json@{0}/images",
    "yolo": "yolo:{0}/data.yaml",
    "labelme": "labelme:{0}",
    "cvat": "cvat:{0}/annotations.xml",
    "label-studio": "label_studio:{0}/tasks.json@{0}/images",
    "supervisely": "supervisely:{0}",
    "geojson": "geo:{0}/labels@{0}/images@pixels:true@attribute:classification",
}


def make_set(tmp_path, annotations, *, height=40, width=60, classes=("thing",)):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((height, width, 3), np.uint8))
    return DataSet(list(classes), [ImageRecord(str(tmp_path / "a.png"), "a", height, width, annotations)])


def square(x, y, size, height=40, width=60):
    mask = np.zeros((height, width), bool)
    mask[y : y + size, x : x + size] = True
    return Annotation(0, (x, y, x + size, y + size), encode_mask(mask))


def assert_same(before, after, *, lowest=0.99, pixel=1.0):
    """The same images, by stem, and in each the same objects: class, mask, box."""
    stems = {Path(record.file_name).stem: record for record in after.images}
    assert len(after.images) == len(before.images) == len(stems)
    for record in before.images:
        other = stems[Path(record.file_name).stem]
        assert (other.height, other.width) == (record.height, record.width)
        assert Path(other.file_name).read_bytes() == Path(record.file_name).read_bytes()
        ours = [annotation for annotation in record.annotations if not annotation.crowd]
        assert len(other.annotations) == len(ours)
        if not ours:
            continue
        masks = [
            [segmentation_to_rle(a.segmentation, record.height, record.width) for a in side]
            for side in (ours, other.annotations)
        ]
        overlap = mask_util.iou(*masks, [0] * len(ours))
        # Two objects may have one mask, so that the best match alone does not tell which is which.
        for index, annotation in enumerate(ours):
            found = [
                a
                for a, value in zip(other.annotations, overlap[index], strict=True)
                if value >= lowest
                and after.classes[a.category] == before.classes[annotation.category]
                and np.abs(np.subtract(a.box, annotation.box)).max() <= pixel
            ]
            assert found, (record.file_name, annotation.id, overlap[index].max())
