"""What DCT-Mask and PatchDCT keep of the ground truth of real COCO images, before any network."""

import contextlib
import io
import json

import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, PolygonMasks
from pycocotools import mask as rle
from pycocotools.coco import COCO

from maskrcnn_ext.evaluation.boundary_ap import boundary_ap
from maskrcnn_ext.ops.dct import DCTCodec, fill_patches, from_patches, patch_kinds, to_patches


def dct_mask(masks):
    codec = DCTCodec(masks.shape[-1], 300)
    return codec.decode(codec.encode(masks))


def patch_dct(masks):
    codec, patches = DCTCodec(8, 6), to_patches(masks, 8)
    return from_patches(fill_patches(patch_kinds(patches), codec.decode(codec.encode(patches))))


@pytest.fixture(scope="module")
def ground_truth(real_data):
    """The objects with outlines of COCO's open validation images: COCO, their annotations and (R, 4) boxes."""
    file = real_data / "coco_open/instances_val.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
    # Copies: an evaluation turns the outlines of its ground truth into RLEs.
    outlined = [a for a in coco.anns.values() if isinstance(a["segmentation"], list) and min(a["bbox"][2:]) >= 1]
    annotations = [dict(a) for a in outlined]
    assert len(annotations) > 100
    boxes = torch.tensor([a["bbox"] for a in annotations])
    boxes[:, 2:] += boxes[:, :2]
    return coco, annotations, boxes


def crops(annotations, boxes, size):
    return PolygonMasks([a["segmentation"] for a in annotations]).crop_and_resize(boxes, size).float()


@pytest.mark.realdata
@pytest.mark.parametrize(("codec", "size"), [(dct_mask, 128), (patch_dct, 112)])
def test_encoding_keeps_the_masks_of_coco(codec, size, ground_truth):
    _, annotations, boxes = ground_truth
    masks = crops(annotations, boxes, size)
    decoded = codec(masks) > 0.5
    target = masks > 0.5
    iou = ((decoded & target).sum((1, 2)) / (decoded | target).sum((1, 2)).clamp(min=1)).mean().item()
    print(f"\n{codec.__name__}: mean IoU {iou:.4f} of {len(masks)} masks at {size} x {size}")
    assert iou >= 0.97


@pytest.mark.slow
@pytest.mark.realdata
def test_patches_keep_more_of_the_outlines(ground_truth):
    coco, annotations, boxes = ground_truth
    found = {}
    for codec, size in ((dct_mask, 128), (patch_dct, 112)):
        masks = codec(crops(annotations, boxes, size)).clamp(0, 1)
        results = []
        for annotation, box, mask in zip(annotations, boxes, masks, strict=True):
            image = coco.imgs[annotation["image_id"]]
            pasted = paste_masks_in_image(mask[None], Boxes(box[None]), (image["height"], image["width"]))[0]
            encoded = rle.encode(pasted.numpy().astype("uint8", order="F"))
            keys = {"image_id": annotation["image_id"], "category_id": annotation["category_id"], "score": 1.0}
            results.append({**keys, "segmentation": {**encoded, "counts": encoded["counts"].decode()}})
        json.dumps(results)  # as an evaluator would write them
        found[codec] = boundary_ap(coco, results)["AP"]
    print(
        f"\nboundary AP of decoded ground truth: {found[dct_mask]:.1f} by DCT-Mask, {found[patch_dct]:.1f} by PatchDCT"
    )
    assert found[patch_dct] > found[dct_mask]
