"""Held-out images are not similar to images of the training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext.data.formats.records import Annotation, ImageRecord
from maskrcnn_ext.data.tools.hold_out import divide, find_broken, group_similar, hold_out
from maskrcnn_ext.errors import InputError
from tests.helpers.labelled_images import noise


def write(folder, pixels):
    records = []
    for index, image in enumerate(pixels):
        file = folder / f"{index:03}.png"
        Image.fromarray(image).save(file)
        found = Annotation(index % 2, (0, 0, 5, 5))
        records.append(ImageRecord(str(file), index, *image.shape[:2], [found]))
    return records


def ids(records):
    return {record.image_id for record in records}


def test_near_duplicates_stay_together_and_classes_are_divided(tmp_path):
    pixels = [noise(48, 48, seed=i) for i in range(20)]
    pixels[7], pixels[13] = pixels[2][:, ::-1], np.clip(pixels[2].astype(int) + 9, 0, 255).astype(np.uint8)
    held = hold_out(write(tmp_path, pixels), 0.3)
    assert ids(held.train) | ids(held.val) == set(range(20))
    assert not ids(held.train) & ids(held.val)
    assert any({2, 7, 13} <= ids(part) for part in (held.train, held.val))
    assert held.num_groups == 18
    assert {record.annotations[0].category for record in held.val} == {0, 1}
    again = hold_out(write(tmp_path, pixels), 0.3)
    assert ids(again.val) == ids(held.val)


def test_the_smaller_of_two_groups_is_held_out(tmp_path):
    images = [noise(48, 48, seed=i) for i in range(2)]
    held = hold_out(write(tmp_path, images), 0.2)
    assert (ids(held.train), ids(held.val)) == ({0}, {1})
    held = hold_out(write(tmp_path, [images[0], images[1], images[1]]), 0.2)
    assert (ids(held.train), ids(held.val)) == ({1, 2}, {0})


def test_the_only_image_with_objects_is_trained_on(tmp_path):
    records = write(tmp_path, [noise(48, 48, seed=i) for i in range(2)])
    held = hold_out([replace(records[0], annotations=[]), records[1]], 0.2)
    assert (ids(held.train), ids(held.val)) == ({1}, {0})


def test_slices_of_a_volume_stay_together(tmp_path):
    rng = np.random.default_rng(0)
    volumes = []
    for _ in range(3):
        steps = rng.normal(size=(6, 48, 48)).cumsum(axis=0) * 0.4 + rng.normal(size=(48, 48)) * 2
        volumes += list(np.clip(128 + 30 * steps, 0, 255).astype(np.uint8))
    groups = group_similar(write(tmp_path, volumes))
    assert len(set(groups)) == 3
    assert all(len(set(groups[start : start + 6])) == 1 for start in (0, 6, 12))


def test_tiles_of_similar_files_stay_together(tmp_path):
    one = noise(96, 96, seed=1)
    whole = write(tmp_path, [one, np.clip(one.astype(int) + 9, 0, 255).astype(np.uint8), noise(96, 96, seed=2)])
    tiles = [
        replace(record, image_id=f"{record.image_id}/{x}", extra={"window": [x, 0, 48, 96]}, width=48)
        for record in whole
        for x in (0, 24, 48)
    ]
    assert group_similar(tiles) == ["0/0"] * 6 + ["2/0"] * 3


def test_the_end_of_a_single_sequence_is_held_out(tmp_path):
    record = write(tmp_path, [noise(32, 32)])[0]
    slices = [ImageRecord(record.file_name, i, 32, 32, [], {"slice": i}) for i in range(10)]
    held = hold_out(slices, 0.2)
    assert (ids(held.train), ids(held.val), held.num_groups) == (set(range(8)), {8, 9}, 1)


def test_images_that_cannot_be_read_are_in_no_part(tmp_path):
    records = write(tmp_path, [noise(32, 32, seed=i) for i in range(6)])
    held = hold_out(records, 0.3, leave_out={4})
    assert ids(held.train) | ids(held.val) == {0, 1, 2, 3, 5}
    file = Path(records[2].file_name)
    file.write_bytes(file.read_bytes()[:300])  # its header can be read
    faults: dict[int | str, str] = {}
    held = hold_out(records, 0.3, leave_out={4}, faults=faults)
    assert ids(held.train) | ids(held.val) == {0, 1, 3, 5}
    assert list(faults) == list(find_broken(records)) == [2]
    assert str(file) in faults[2]
    assert {record.image_id for part in divide(records, 2, faults={}) for record in part} == {0, 1, 3, 4, 5}


def test_images_that_pillow_does_not_know_are_read(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    records = write(tmp_path, [noise(32, 32, seed=i) for i in range(2)])
    for record in records:
        record.file_name = str(Path(record.file_name).with_suffix(".tif"))
        tifffile.imwrite(record.file_name, noise(32, 32, 5, seed=record.image_id), photometric="minisblack")
    assert not find_broken(records)
    assert len(set(group_similar(records))) == 2


def test_a_single_image_cannot_be_divided(tmp_path):
    with pytest.raises(InputError, match="1 image can be read, so that none can be held out"):
        hold_out(write(tmp_path, [noise(32, 32)]), 0.2)


def test_folds_hold_each_image_once_and_keep_groups_together(tmp_path):
    pixels = [noise(48, 48, seed=i) for i in range(12)]
    pixels[7] = pixels[2][:, ::-1]
    folds = divide(write(tmp_path, pixels), 3, leave_out={11})
    assert sorted(record.image_id for fold in folds for record in fold) == list(range(11))
    assert all(3 <= len(fold) <= 5 for fold in folds)
    assert any({2, 7} <= ids(fold) for fold in folds)
    assert all({record.annotations[0].category for record in fold} == {0, 1} for fold in folds)


def test_folds_of_a_single_sequence_are_its_parts(tmp_path):
    record = write(tmp_path, [noise(32, 32)])[0]
    slices = [ImageRecord(record.file_name, i, 32, 32, [], {"slice": i}) for i in range(5)]
    assert [ids(fold) for fold in divide(slices, 2)] == [{0, 1, 2}, {3, 4}]
    with pytest.raises(InputError, match="3 folds of 2 groups"):
        divide(write(tmp_path, [noise(32, 32, seed=i) for i in range(2)]), 3)
