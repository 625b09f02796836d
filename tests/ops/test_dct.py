"""DCT codecs and patches: references, and what they keep of the masks of real COCO images."""

import contextlib
import io
import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, PolygonMasks
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO

from maskrcnn_ext.evaluation.boundary_ap import boundary_ap
from maskrcnn_ext.ops.dct import (
    BACKGROUND,
    FOREGROUND,
    MIXED,
    DCTCodec,
    dct_basis,
    fill_patches,
    from_patches,
    patch_kinds,
    to_patches,
    zigzag,
)


def test_zigzag_order_equals_jpeg():
    # ITU-T T.81, figure 5: the sequence of an 8 x 8 block, written as (row, column).
    expected = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0), (4, 0)]
    assert zigzag(11) == expected


def test_300_coefficients_are_24_antidiagonals():
    assert {row + column for row, column in zigzag(300)} == set(range(24))


def test_the_basis_is_orthonormal_and_opencvs():
    basis = dct_basis(8, 8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8))
    signal = np.random.default_rng(0).random((8, 1)).astype(np.float32)
    np.testing.assert_allclose(basis.numpy() @ signal, cv2.dct(signal), atol=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_encode_takes_opencvs_coefficients_in_zigzag_order(seed):
    mask = (np.random.default_rng(seed).random((16, 16)) > 0.5).astype(np.float32)
    spectrum = cv2.dct(mask)
    vector = DCTCodec(16, 30).encode(torch.as_tensor(mask))
    np.testing.assert_allclose(vector.numpy(), [spectrum[cell] for cell in zigzag(30)], atol=1e-5)


def test_decode_is_the_projection_on_the_low_frequencies():
    codec = DCTCodec(32, 60)
    vectors = torch.randn(2, 3, 60)
    masks = codec.decode(vectors)
    assert masks.shape == (2, 3, 32, 32)
    torch.testing.assert_close(codec.encode(masks), vectors, atol=1e-5, rtol=0)


def test_all_coefficients_lose_nothing():
    mask = (torch.rand(8, 8) > 0.5).float()
    vectors = torch.tensor([cv2.dct(mask.numpy())[cell] for cell in zigzag(36)])
    torch.testing.assert_close(DCTCodec(8, 36).encode(mask), vectors, atol=1e-5, rtol=0)
    smooth = torch.ones(8, 8)
    torch.testing.assert_close(DCTCodec(8, 1).decode(DCTCodec(8, 1).encode(smooth)), smooth)


def test_too_many_coefficients():
    with pytest.raises(ValueError, match="masks of 8 px have 8"):
        DCTCodec(8, 37)


def test_a_codec_adds_no_state_to_checkpoints():
    assert DCTCodec(16, 30).state_dict() == {}


def test_patches_and_back():
    masks = torch.rand(3, 32, 32)
    patches = to_patches(masks, 8)
    assert patches.shape == (3, 4, 4, 8, 8)
    torch.testing.assert_close(patches[1, 2, 3], masks[1, 16:24, 24:32])
    torch.testing.assert_close(from_patches(patches), masks)


def test_patch_kinds_and_filling_of_uniform_patches():
    mask = torch.zeros(1, 4, 6)
    mask[:, :2, 2:4] = 1
    mask[:, :2, 5] = 1
    patches = to_patches(mask, 2)
    kinds = patch_kinds(patches)
    assert kinds.tolist() == [[[BACKGROUND, FOREGROUND, MIXED], [BACKGROUND, BACKGROUND, BACKGROUND]]]
    # Only mixed patches use their vectors; those of others may decode to anything.
    noise = torch.where((kinds == MIXED)[..., None, None], patches, torch.rand_like(patches))
    torch.testing.assert_close(from_patches(fill_patches(kinds, noise)), mask)


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
