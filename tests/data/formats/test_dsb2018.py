"""Folders of masks: objects, skipped files, and errors for broken folders."""

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.dsb2018 import list_ids, read_dsb2018


@pytest.fixture
def folder(tmp_path):
    for name in ("b", "a"):
        for part in ("images", "masks"):
            (tmp_path / name / part).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name / f"images/{name}.png"), np.zeros((20, 30, 4), np.uint8))
    (tmp_path / "notes").mkdir()  # not an image's folder
    return tmp_path


def write_mask(path, rows, columns, shape=(20, 30)):
    mask = np.zeros(shape, np.uint8)
    mask[rows, columns] = 255
    cv2.imwrite(str(path), mask)
    return mask > 0


def test_masks_and_boxes_are_exact(folder):
    masks = [
        write_mask(folder / "a/masks/1.png", slice(2, 9), slice(3, 4)),
        write_mask(folder / "a/masks/2.png", slice(10, 20), slice(20, 30)),
    ]
    first, second = read_dsb2018(folder).images
    assert [first.image_id, second.image_id] == ["a", "b"] == list_ids(folder)
    assert (first.height, first.width) == (20, 30)
    assert [annotation.box for annotation in first.annotations] == [(3, 2, 4, 9), (20, 10, 30, 20)]
    for annotation, mask in zip(first.annotations, masks, strict=True):
        np.testing.assert_array_equal(mask_util.decode(annotation.segmentation), mask)
    assert second.annotations == [], "an image without masks is kept"


def test_an_all_zero_mask_is_no_object(folder):
    write_mask(folder / "a/masks/1.png", slice(0, 0), slice(0, 0))
    assert read_dsb2018(folder, split=lambda ids: ids[:1]).images[0].annotations == []


def test_mask_folders_have_one_class(folder):
    assert read_dsb2018(folder).classes == ["object"]
    with pytest.raises(InputError, match="`classes` must be one name"):
        read_dsb2018(folder, classes=["cat", "dog"])


def test_broken_folders_are_named(folder):
    write_mask(folder / "a/masks/1.png", slice(0, 5), slice(0, 5), shape=(20, 31))
    with pytest.raises(InputError, match=r"a/masks/1\.png: mask is 31 x 20, its image 30 x 20"):
        read_dsb2018(folder)
    (folder / "a/masks/1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"a/masks/1\.png: not a readable image"):
        read_dsb2018(folder)
    (folder / "b/images/b.png").unlink()
    with pytest.raises(InputError, match=r"b/images: expected one PNG, found 0"):
        read_dsb2018(folder, split=lambda ids: ids[1:])


def test_grey_masks_may_have_opacity(folder):
    mask = write_mask(folder / "b/masks/1.png", slice(2, 9), slice(3, 4))
    Image.merge("LA", [Image.fromarray(mask.astype(np.uint8) * 255), Image.new("L", (30, 20), 255)]).save(
        folder / "a/masks/1.png"
    )
    for record in read_dsb2018(folder).images:
        np.testing.assert_array_equal(mask_util.decode(record.annotations[0].segmentation), mask)


def test_skipped_files_are_logged(folder, caplog):
    write_mask(folder / "a/masks/1.png", slice(0, 5), slice(0, 5))
    write_mask(folder / "a/masks/2.png", slice(0, 0), slice(0, 0))
    assert len(read_dsb2018(folder).images[0].annotations) == 1
    assert "left out 1 mask without a pixel, such as" in caplog.text


def test_a_folder_of_something_else_is_named(folder):
    for other in (folder / "notes", folder / "a"):
        with pytest.raises(InputError, match="no <image id>/images"):
            read_dsb2018(other)


def test_all_faults_are_listed_and_the_rest_is_read(folder):
    write_mask(folder / "a/masks/1.png", slice(2, 9), slice(3, 4), shape=(20, 31))
    faults = []
    assert [record.image_id for record in read_dsb2018(folder, faults=faults).images] == ["b"]
    assert ["a/masks/1.png: mask is 31 x 20" in fault for fault in faults] == [True]
