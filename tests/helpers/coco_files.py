"""A small COCO file with everything that the format allows."""

import json

import numpy as np
import pycocotools.mask as mask_util

HEIGHT, WIDTH = 40, 60


def as_text(rle):
    counts = rle["counts"]
    return {**rle, "counts": counts.decode() if isinstance(counts, bytes) else counts}


def rle_of(rng, *, compressed):
    mask = np.asfortranarray(rng.random((HEIGHT, WIDTH)) < 0.5, dtype=np.uint8)
    if compressed:
        return as_text(mask_util.encode(mask))
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": runs if flat[0] == 0 else [0, *runs]}


def write_coco_file(folder, seed=0, **changes):
    """Writes a file with ids that have gaps and no order, each kind of segmentation, crowds, float boxes and unknown keys."""
    rng = np.random.default_rng(seed)
    ids = [7, 0, 12, 3]
    images = [{"id": i, "file_name": f"sub/{i}.jpg", "height": HEIGHT, "width": WIDTH, "license": 3} for i in ids]
    segmentations = [
        [[1, 2, 30.5, 4, 20, 30.25]],
        [[1, 2, 30, 4, 20, 30], [40, 5, 50, 5, 45, 20, 40, 18]],
        rle_of(rng, compressed=True),
        rle_of(rng, compressed=False),
        [[1, 2, 3, 4], [5, 5, 15, 5, 15, 15]],
        [],
        None,
    ]
    annotations = []
    for number, segmentation in enumerate(segmentations):
        annotation = {
            "id": 5 * number,
            "image_id": ids[number % 3],  # the image 3 has none
            "category_id": [90, 4][number % 2],
            "bbox": [1.5, 2.25, 10 + number, 7.125],
            "area": 12.5,
            "segmentation": segmentation,
            "attributes": {"occluded": True},
        }
        if number % 3 == 0:
            annotation.update(iscrowd=int(number == 3), keypoints=[3, 4, 2, 0, 0, 0], num_keypoints=1)
        annotations.append({key: value for key, value in annotation.items() if value is not None})
    categories = [
        {"id": 90, "name": "dog", "keypoints": ["left_ear", "right_ear"], "skeleton": [[1, 2]]},
        {"id": 4, "name": "cat", "supercategory": "animal"},
    ]
    file = folder / "coco.json"
    data = {"images": images, "annotations": annotations, "categories": categories, **changes}
    file.write_text(json.dumps(data))
    return file
