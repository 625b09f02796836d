"""Small data sets with one property each, for fingerprints and plans."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn_ext.data.fingerprint import Fingerprint, ImageFigures, ObjectFigures


def noise(*shape, dtype=np.uint8, seed=0):
    """Returns random pixels."""
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def write_data(folder: Path, images, objects, classes=("cell",), keypoints=()) -> str:
    """Writes images and their annotations; returns the name of the data set.

    Args:
        folder: to create.
        images: (file name, pixels), or (file name, bytes) for a broken file of 64 x 64.
        objects: (index of the image, class, x, y, width, height), all with outlines unless the class is negative: -1 - class.
        classes: names.
        keypoints: names; each object then has all of them.
    """
    folder.mkdir()
    records, annotations = [], []
    for index, (file, pixels) in enumerate(images, start=1):
        path = folder / file
        if isinstance(pixels, bytes):
            path.write_bytes(pixels)
        elif path.suffix == ".npy":
            np.save(path, pixels)
        else:
            Image.fromarray(pixels).save(path)
        height, width = (64, 64) if isinstance(pixels, bytes) else pixels.shape[:2]
        records.append({"id": index, "file_name": file, "height": height, "width": width})
    for image, category, x, y, width, height in objects:
        found = {"id": len(annotations) + 1, "image_id": image + 1, "category_id": max(category, -1 - category) + 1}
        found |= {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
        if category >= 0:
            found["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        if keypoints:
            found |= {"keypoints": [x + 1, y + 1, 2] * len(keypoints), "num_keypoints": len(keypoints)}
        annotations.append(found)
    categories = [{"id": index, "name": text} for index, text in enumerate(classes, start=1)]
    if keypoints:
        categories = [{**category, "keypoints": list(keypoints), "skeleton": []} for category in categories]
    file = folder / "data.json"
    file.write_text(json.dumps({"images": records, "annotations": annotations, "categories": categories}))
    return f"coco:{file}@{folder}"


def make_fingerprint(
    sides=(60.0,),
    *,
    num_images=100,
    per_image=5,
    size=(640, 480),
    classes=("cell",),
    counts=None,
    name="data",
    images=None,
    objects=None,
):
    """Returns the fingerprint of a data set that does not exist: square objects of these sides, in turn.

    Args:
        sides: in pixels.
        num_images: number of images.
        per_image: objects of each image.
        size: width and height of the images.
        classes: names.
        counts: objects of each class; equal by default.
        name: of the data set.
        images: changes to the figures of the images.
        objects: changes to the figures of the objects.
    """
    total = num_images * per_image
    side = np.resize(np.array(sides, np.float32), total)[:10_000]
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 1, (len(side), 2)) * (np.array(size) - side[:, None])
    counts = counts or tuple(total // len(classes) for _ in classes)
    found = ObjectFigures(
        classes=tuple(classes),
        counts=tuple(counts),
        images_with=tuple(min(count, num_images) for count in counts),
        num_crowds=0,
        per_image=(per_image,) * num_images,
        boxes=np.concatenate([corner, corner + side[:, None]], axis=1).astype(np.float32),
        image_sizes=np.full((len(side), 2), size, np.float32),
        outlined=1.0,
        has_polygons_only=True,
    )
    pixels = ImageFigures(
        sizes=np.full((num_images, 2), size, np.int32),
        image_format="BGR",
        channels=3,
        dtype="uint8",
        mean=(100.0, 110.0, 120.0),
        std=(50.0, 50.0, 50.0),
        minimum=(0.0, 0.0, 0.0),
        maximum=(255.0, 255.0, 255.0),
        are_photos=True,
    )
    return Fingerprint(name, "key", replace(found, **(objects or {})), replace(pixels, **(images or {})))
