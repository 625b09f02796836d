"""Images get the size of their file, and their objects move along; records of one file become one."""

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from maskrcnn_ext.data.check import find_faults, read_images, view_dataset
from maskrcnn_ext.data.check.repair import repair
from maskrcnn_ext.data.check.segmentation import parse_segmentation
from tests.helpers.planted import (
    EXIF_ORIENTATION,
    SIZE,
    check,
    double_file_name,
    of_image,
    serious,
    set_rectangle,
    wrong_size,
)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_objects_turn_with_their_image(tmp_path, orientation, form):
    """The mask is drawn into the image: after the repair, it must be where Pillow shows it."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:12, 30:50] = 1
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(mask * 255).save(tmp_path / "a.png", exif=exif)
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [30, 5, 2, 0, 0, 0]}
    set_rectangle(annotation, 30, 5, 20, 7)
    if form == "rle":
        rle = mask_util.encode(np.asfortranarray(mask))
        annotation["segmentation"] = {**rle, "counts": rle["counts"].decode()}
    image = {"id": 1, "file_name": "a.png", "height": 40, "width": 60}
    data = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "a"}]}
    view = view_dataset(data, tmp_path, "set")
    pixels = read_images(view)
    faults = find_faults(view, pixels)
    assert serious(faults) == {("exif-rotation", 1, None)}
    repaired, _ = repair(data, tmp_path, faults, pixels)
    assert serious(check(repaired, tmp_path)) == set()
    shown = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE) > 127
    (found,) = repaired["annotations"]
    placed = parse_segmentation(found["segmentation"], *shown.shape)
    np.testing.assert_array_equal(mask_util.decode(placed.rle), shown)
    ys, xs = np.nonzero(shown)
    np.testing.assert_allclose(found["bbox"], [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1])
    x, y, seen, *rest = found["keypoints"]
    assert (x in (xs.min(), xs.max()), y in (ys.min(), ys.max()), seen, rest) == (True, True, 2, [0, 0, 0])


def test_objects_drawn_on_the_rotated_image_stay(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.new("L", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    annotation = {"id": 1, "image_id": 1, "category_id": 1}
    set_rectangle(annotation, 5, 45, 20, 10)  # below the 40 rows of the record
    image = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}
    data = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "a"}]}
    view = view_dataset(data, tmp_path, "set")
    pixels = read_images(view)
    repaired, _ = repair(data, tmp_path, find_faults(view, pixels), pixels)
    assert (repaired["images"][0]["width"], repaired["images"][0]["height"]) == (40, 60)
    assert repaired["annotations"][0]["bbox"] == [5, 45, 20, 10]
    assert serious(check(repaired, tmp_path)) == set()


def rotated_set(tmp_path, *boxes, form="polygons", record=(60, 40)):
    """Returns images stored as 60 x 40 that EXIF turns to 40 x 60, each with a record of `record` (width, height) and an object."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    data = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    for number, box in enumerate(boxes, start=1):
        Image.new("L", (60, 40), number).save(tmp_path / f"{number}.jpg", exif=exif)
        image = {"id": number, "file_name": f"{number}.jpg", "width": record[0], "height": record[1]}
        data["images"].append(image)
        data["annotations"].append({"id": number, "image_id": number, "category_id": 1})
        set_rectangle(data["annotations"][-1], *box)
        if form == "rle":  # of the image as it is shown
            mask = np.zeros((60, 40), np.uint8)
            mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 1
            rle = mask_util.encode(np.asfortranarray(mask))
            data["annotations"][-1]["segmentation"] = {**rle, "counts": rle["counts"].decode()}
    return data


def repaired_images(data, folder, **options):
    view = view_dataset(data, folder, "set")
    pixels = read_images(view)
    return repair(data, folder, find_faults(view, pixels), pixels, **options)


def test_objects_that_fit_both_ways_are_not_moved_by_a_guess(tmp_path):
    data = rotated_set(tmp_path, (5, 20, 10, 8))
    repaired, log = repaired_images(data, tmp_path)
    assert repaired == data
    assert "add --rotated-objects stored or shown" in str(log[0])
    assert serious(check(repaired, tmp_path)) == {("exif-rotation", 1, None)}


@pytest.mark.parametrize(("frame", "box"), [("shown", [5, 20, 10, 8]), ("stored", [12, 5, 8, 10])])
def test_the_user_chooses_the_image_of_objects_that_fit_both(tmp_path, frame, box):
    data = rotated_set(tmp_path, (5, 20, 10, 8))
    repaired, _ = repaired_images(data, tmp_path, rotated_objects=frame)
    assert repaired["annotations"][0]["bbox"] == box
    assert serious(check(repaired, tmp_path)) == set()


def test_one_image_that_is_clear_decides_for_the_others(tmp_path):
    data = rotated_set(tmp_path, (5, 20, 10, 8), (5, 45, 10, 8))
    repaired, _ = repaired_images(data, tmp_path)
    assert [a["bbox"] for a in repaired["annotations"]] == [[5, 20, 10, 8], [5, 45, 10, 8]]
    assert serious(check(repaired, tmp_path)) == set()


def test_the_size_of_an_rle_shows_the_image_it_was_drawn_on(tmp_path):
    data = rotated_set(tmp_path, (5, 20, 10, 8), form="rle")
    repaired, _ = repaired_images(data, tmp_path)
    assert repaired["annotations"][0]["bbox"] == [5, 20, 10, 8]
    assert serious(check(repaired, tmp_path)) == set()


def test_a_record_of_a_scaled_image_is_scaled_and_turned(tmp_path):
    data = rotated_set(tmp_path, (22, 5, 5, 4), record=(30, 20))
    repaired, _ = repaired_images(data, tmp_path)
    assert repaired["annotations"][0]["bbox"] == [40 - 2 * 9, 2 * 22, 2 * 4, 2 * 5]
    assert serious(check(repaired, tmp_path)) == set()


def test_objects_stay_if_the_file_is_another_image(tmp_path):
    data = rotated_set(tmp_path, (5, 20, 50, 8))
    Image.new("L", (40, 60)).save(tmp_path / "1.jpg")
    repaired, log = repaired_images(data, tmp_path)
    assert repaired == data
    assert "do not fit the file" in str(log[0])


def test_objects_scale_with_their_image(rles):
    data, folder = rles
    wrong_size(data, folder)
    view = view_dataset(data, folder, "set")
    pixels = read_images(view)
    repaired, log = repair(data, folder, find_faults(view, pixels), pixels)
    assert "scaled by 2" in str(log[0])
    for old, new in zip(of_image(data, 3), of_image(repaired, 3), strict=True):
        assert new["bbox"] == [2 * value for value in old["bbox"]]
        assert new["area"] == 4 * old["area"]
        assert new["segmentation"]["size"] == [2 * SIZE, 2 * SIZE]
    assert of_image(repaired, 4) == of_image(data, 4)
    assert serious(check(repaired, folder)) == set()


def test_two_records_of_a_file_become_one_with_the_objects_of_both(polygons):
    data, folder = polygons
    double_file_name(data, folder)
    moved = of_image(data, 3)[-1]["id"]
    of_image(data, 3)[-1]["image_id"] = 77
    repaired, _ = repair(data, folder, check(data, folder), {})
    assert [image["id"] for image in repaired["images"]] == list(range(1, 9))
    assert moved in [annotation["id"] for annotation in of_image(repaired, 3)]
    assert len(repaired["annotations"]) == len(data["annotations"])


@pytest.mark.parametrize("size", [{"height": 30, "width": 40}, {}])
def test_an_image_that_is_too_large_to_read_at_once_stays(tmp_path, monkeypatch, size):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    data = {
        "images": [{"id": 1, "file_name": "a.png", **size}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "a"}],
    }
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    repaired, _ = repaired_images(data, tmp_path)
    assert repaired["images"][0] | {"height": 30, "width": 40} == repaired["images"][0]
    assert len(repaired["annotations"]) == 1
