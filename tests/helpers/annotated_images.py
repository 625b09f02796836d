"""Small images with annotations of every kind, and arguments of the mapper."""

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, Instances
from PIL import Image

HEIGHT, WIDTH = 60, 80
FLIP = [0, 2, 1]  # of three keypoints
AUGMENTATIONS = [
    T.ResizeShortestEdge([50, 90], sample_style="range"),
    T.RandomCrop("relative", (0.7, 0.7)),
    T.RandomFlip(),
]


def polygon_of(x, y, w=20, h=16):
    return [[x, y, x + w, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h]]


def rle_of(x, y, w=20, h=16, *, compressed=True):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + h, x : x + w] = 1
    if compressed:
        rle = mask_util.encode(np.asfortranarray(mask))
        return {**rle, "counts": rle["counts"].decode()}
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, flat.size]).tolist()}


def mask_of(x, y, w=20, h=16):
    return mask_util.decode(rle_of(x, y, w, h)).astype(bool)


def annotation(x=10, y=10, w=20, h=16, segmentation=None, **rest):
    found = {"bbox": [x, y, w, h], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": 0, **rest}
    return found if segmentation is None else {**found, "segmentation": segmentation}


def record_of(path, *annotations, **rest):
    record = {"file_name": str(path), "image_id": 7, "height": HEIGHT, "width": WIDTH}
    return {**record, "annotations": list(annotations), **rest}


def arguments(**changes):
    return {"augmentations": [], "image_format": "BGR", "use_instance_mask": True, **changes}


def bits(instances):
    if isinstance(instances.gt_masks, BitMasks):
        return instances.gt_masks.tensor.numpy()
    return BitMasks.from_polygon_masks(instances.gt_masks, *instances.image_size).tensor.numpy()


def assert_masks_fit(instances: Instances, *, recomputed):
    """Each mask is there, and with recomputed boxes no further than a pixel from its box."""
    for mask, box in zip(bits(instances), instances.gt_boxes.tensor.numpy(), strict=True):
        ys, xs = np.nonzero(mask)
        assert len(ys)
        if recomputed:
            np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1.001)


KINDS = [
    lambda x, y: polygon_of(x, y),
    lambda x, y: rle_of(x, y),
    lambda x, y: rle_of(x, y, compressed=False),
    lambda x, y: {**rle_of(x, y), "counts": rle_of(x, y)["counts"].encode()},
    lambda x, y: mask_of(x, y),
    lambda *_: None,
    lambda *_: [],
]


def make_set(folder, count, bad):
    records = []
    for index in range(count):
        path = folder / f"{index}.png"
        Image.fromarray(np.full((16, 16, 3), index, np.uint8)).save(path)
        if index in bad:
            path.write_bytes(path.read_bytes()[:50])
        records.append({**record_of(path), "image_id": index, "height": 16, "width": 16})
    return records
