"""Images that occur twice: exact and near copies are found, different images are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from maskrcnn_ext.cli import main
from maskrcnn_ext.data.check import find_faults, read_images, view_dataset
from maskrcnn_ext.data.check.duplicates import find_near_pairs
from maskrcnn_ext.data.check.images import make_thumbnail
from maskrcnn_ext.data.check.repair import repair
from maskrcnn_ext.data.check.source import find
from tests.helpers.planted import serious


def test_leaks_are_found_exact_and_near(polygons, tmp_path):
    data, folder = polygons
    view = view_dataset(data, folder, "train")
    others = tmp_path / "val"
    others.mkdir()
    Image.open(folder / "000002.jpg").save(others / "same.png")  # other bytes, the same pixels
    ImageOps.mirror(Image.open(folder / "000005.jpg").resize((130, 130))).save(others / "like.jpg", quality=60)
    images = [{"id": n, "file_name": name, "height": 1, "width": 1} for n, name in enumerate(("same.png", "like.jpg"))]
    other = view_dataset({"images": images, "annotations": [], "categories": []}, others, "val")
    pixels = read_images(view)
    faults = find_faults(view, pixels, other, read_images(other))
    assert serious(faults) == {("leak-exact", 2, None), ("leak-near", 5, None)}
    (near,) = (fault for fault in faults if fault.kind == "leak-near")
    assert near.message == "image 1 (like.jpg) of val, turned or mirrored"
    assert all(fault.other.path.parent == others for fault in faults if fault.kind.startswith("leak"))
    repaired, log = repair(data, folder, faults, pixels)
    assert [image["id"] for image in repaired["images"]] == [1, 3, 4, 5, 6, 7, 8]
    assert any("leak-exact" in str(change) for change in log)


@pytest.fixture(scope="module")
def images(shapes):
    return [Image.open(path).convert("RGB") for path in sorted((shapes.parent / "images").glob("*.jpg"))]


def thumbnails(images):
    return np.stack([make_thumbnail(image) for image in images])


def test_different_images_are_not_near(images):
    blank = [Image.new("RGB", (50, 50), color) for color in ("black", "white")]
    thumbs = thumbnails(images + blank)
    assert list(find_near_pairs(thumbs, 0)) == []
    twice = np.concatenate([thumbs, thumbs])
    count = len(images)
    assert list(find_near_pairs(twice, len(thumbs))) == [(count + 2 + n, n, False) for n in range(count)], (
        "not the blank ones"
    )


def test_a_video_has_one_pair_for_each_frame(images):
    frames = thumbnails([images[0]] * 30) + np.random.default_rng(0).normal(0, 1, (30, 16, 16)).astype(np.float32)
    assert [later for later, *_ in find_near_pairs(frames, 0)] == list(range(1, 30))
    assert len(list(find_near_pairs(frames, 10))) == 20 + 19, "one in the other set, and one in their own"


def as_jpeg(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=20)
    return Image.open(stream)


TURNS = {
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "half a turn": lambda image: image.rotate(180),
    "a quarter": lambda image: image.rotate(90),
    "three quarters": lambda image: image.rotate(270),
    "transposed": lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    "transversed": lambda image: image.transpose(Image.Transpose.TRANSVERSE),
}
CHANGES = {
    "smaller": lambda image: image.resize((60, 60)),
    "wider": lambda image: image.resize((200, 120)),
    "jpeg": as_jpeg,
    "darker": lambda image: image.point(lambda value: value * 0.7 + 5),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("name", [*TURNS, *CHANGES])
def test_changed_copies_are_near_duplicates(images, name):
    changed = [{**TURNS, **CHANGES}[name](image) for image in images]
    pairs = set(find_near_pairs(np.concatenate([thumbnails(images), thumbnails(changed)]), len(images)))
    assert pairs == {(len(images) + n, n, name in TURNS) for n in range(len(images))}


@pytest.mark.realdata
def test_different_real_images_are_not_near(real_data):
    paths = []
    for folder in ("balloon", "coco_open", "fruits_nuts", "kudzu_bugs"):
        view = view_dataset(*find(str(real_data / folder / "instances_train.json")))
        paths += [image.path for image in view.images[:12]]
    assert list(find_near_pairs(thumbnails([Image.open(path) for path in paths]), 0)) == []


def test_a_set_against_itself_is_all_leaks(shapes, capsys):
    name = f"coco:{shapes}@{shapes.parent / 'images'}"
    assert main(["check-data", name, "--against", name]) == 1
    assert "leak-exact (8)" in capsys.readouterr().out
