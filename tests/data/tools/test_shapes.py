"""The generated data set: deterministic, and its masks are the visible pixels."""

import json

import cv2
import numpy as np
import pycocotools.mask as mask_util

from maskrcnn_ext.data.tools.shapes import CLASSES, draw_scene, make_shapes


def test_the_same_arguments_give_the_same_files(tmp_path):
    first, second = (make_shapes(tmp_path / name, num_images=3, size=64, seed=5) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    for image in (tmp_path / "a/images").iterdir():
        assert image.read_bytes() == (tmp_path / "b/images" / image.name).read_bytes()
    other = make_shapes(tmp_path / "c", num_images=3, size=64, seed=6)
    assert other.read_bytes() != first.read_bytes()


def test_more_images_do_not_change_the_first_ones(tmp_path):
    few, many = (make_shapes(tmp_path / str(n), num_images=n, size=64) for n in (2, 4))
    few, many = json.loads(few.read_text()), json.loads(many.read_text())
    assert [a for a in many["annotations"] if a["image_id"] <= 2] == few["annotations"]


def test_visible_masks_do_not_overlap():
    for seed in range(20):
        pixels, objects = draw_scene(np.random.default_rng(seed), 96)
        assert (pixels.shape, pixels.dtype) == ((96, 96, 3), np.uint8)
        assert sum((mask.astype(int) for _, mask in objects), np.zeros((96, 96), int)).max() <= 1


def test_there_are_all_classes_empty_images_and_occlusion(tmp_path):
    data = json.loads(make_shapes(tmp_path, num_images=80, size=96).read_text())
    assert [category["name"] for category in data["categories"]] == list(CLASSES)
    assert {annotation["category_id"] for annotation in data["annotations"]} == {1, 2, 3, 4, 5}
    assert {image["id"] for image in data["images"]} > {annotation["image_id"] for annotation in data["annotations"]}
    discs = [a for a in data["annotations"] if a["category_id"] == 1]
    fullness = [a["area"] / (a["bbox"][2] * a["bbox"][3]) for a in discs]
    assert min(fullness) < 0.6 < 0.74 < max(fullness), "a whole disc fills pi/4 of its box, a covered one less"


def test_boxes_and_areas_are_those_of_the_masks(shapes):
    data = json.loads(shapes.read_text())
    for annotation in data["annotations"]:
        mask = mask_util.decode(annotation["segmentation"]).astype(bool)
        ys, xs = np.nonzero(mask)
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert annotation["area"] == mask.sum()
    for image in data["images"]:
        pixels = cv2.imread(str(shapes.parent / "images" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
