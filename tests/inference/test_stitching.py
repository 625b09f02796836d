"""Objects of slices become objects of a volume, label by label."""

import csv

import numpy as np
import tifffile

from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord
from maskrcnn_ext.inference.sources import find_inputs
from maskrcnn_ext.inference.stitching import SliceObject, link_slices, stitch
from maskrcnn_ext.inference.volumes import find_volumes
from maskrcnn_ext.ops.rle import encode_mask, rle_box


def mask(x, y, size=8, shape=(40, 60)):
    found = np.zeros(shape, bool)
    found[y : y + size, x : x + size] = True
    return encode_mask(found)


def test_overlaps_of_one_class_are_linked_one_to_one():
    def one(x, y, category=0):
        return SliceObject(category, 0.9, mask(x, y))

    # IoU of a shift by 2 of 8 pixels: 6 / 10; by 4: 4 / 12
    slices = [[one(5, 5), one(30, 5)], [one(32, 5), one(7, 5)], [one(9, 5, category=1), one(36, 5)], [one(36, 5)]]
    assert link_slices(slices, 0.5) == [[1, 2], [2, 1], [3, 4], [4]]
    assert link_slices(slices, 0.3) == [[1, 2], [2, 1], [3, 2], [2]]
    two = [[one(5, 5)], [one(6, 5), one(5, 5)]]
    assert link_slices(two, 0.1) == [[1], [2, 1]]
    assert link_slices([[], [one(1, 1)], []], 0.5) == [[], [1], []]


def test_a_ball_is_one_object_with_all_of_its_voxels(tmp_path):
    z, y, x = np.mgrid[:16, :40, :60]
    balls = ((z - 8) ** 2 + (y - 15) ** 2 + (x - 15) ** 2 < 49).astype(int)
    balls[(z - 9) ** 2 + (y - 20) ** 2 + (x - 40) ** 2 < 36] = 2
    tifffile.imwrite(tmp_path / "b.tif", balls.astype(np.uint8), photometric="minisblack")
    (volume,) = find_volumes(find_inputs([str(tmp_path / "b.tif")]).items)
    records = []
    for item, plane in zip(volume.items, balls, strict=True):
        objects = []
        for number in (2, 1):
            if (plane == number).any():
                rle = encode_mask(plane == number)
                objects.append(Annotation(number - 1, rle_box(rle), rle, score=number / 4))
        if objects:  # slices without results have no record
            records.append(ImageRecord("b.tif", item.image_id, 40, 60, objects))
    (file,) = stitch(DataSet(["one", "two"], records), [volume], tmp_path / "out", 0.25)
    labels = tifffile.imread(file)
    numbers = {number: np.unique(labels[balls == number]).tolist() for number in (1, 2)}
    assert {number: len(found) for number, found in numbers.items()} == {1: 1, 2: 1}
    np.testing.assert_array_equal(labels > 0, balls > 0)
    rows = list(csv.DictReader((tmp_path / "out/b.csv").open()))
    assert {row["class"]: (int(row["voxels"]), float(row["score"])) for row in rows} == {
        "one": ((balls == 1).sum(), 0.25),
        "two": ((balls == 2).sum(), 0.5),
    }
    assert {row["class"]: (row["first"], row["last"]) for row in rows} == {"one": ("2", "14"), "two": ("4", "14")}
