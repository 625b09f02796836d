"""Ground truth of outlines in every form, of broken outlines, and of keypoints."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, PolygonMasks
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from tests.helpers.annotated_images import (
    AUGMENTATIONS,
    FLIP,
    HEIGHT,
    KINDS,
    WIDTH,
    annotation,
    arguments,
    assert_masks_fit,
    bits,
    mask_of,
    polygon_of,
    record_of,
    rle_of,
)


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(range(len(KINDS))), max_size=6),
    mask_format=st.sampled_from(["polygon", "bitmask"]),
    seed=st.integers(0, 1000),
)
def test_every_mixture_of_outlines_gives_masks_with_tight_boxes(image_file, kinds, mask_format, seed):
    annotations = [
        annotation(5 + 8 * index, 4 + 6 * index, segmentation=KINDS[kind](5 + 8 * index, 4 + 6 * index))
        for index, kind in enumerate(kinds)
    ]
    np.random.seed(seed)
    mapper = SafeMapper(
        True, **arguments(augmentations=AUGMENTATIONS, instance_mask_format=mask_format, recompute_boxes=True)
    )
    instances = mapper(record_of(image_file, *annotations))["instances"]
    # What a crop leaves of an outline may be less than a pixel: it has no raster.
    visible = [index for index, mask in enumerate(bits(instances)) if mask.any()]
    assert_masks_fit(instances[visible], recomputed=True)
    polygons = mask_format == "polygon" and all(kind in (0, 5, 6) for kind in kinds)
    assert isinstance(instances.gt_masks, PolygonMasks if polygons else BitMasks)


def test_all_kinds_of_an_outline_are_the_same_mask(image_file):
    annotations = [annotation(12, 8, segmentation=kind(12, 8)) for kind in KINDS[1:]]
    mapper = SafeMapper(True, **arguments(augmentations=[T.HFlipTransform(WIDTH)]))
    masks = bits(mapper(record_of(image_file, *annotations))["instances"])
    for mask in masks:
        np.testing.assert_array_equal(mask, mask_of(12, 8)[:, ::-1])


def test_a_polygon_beyond_the_edge_has_the_box_of_its_inside_part(image_file):
    outline = [[-30, 20, 40, 10, 100, 70, 40, 55]]
    mapper = SafeMapper(True, **arguments(recompute_boxes=True))
    instances = mapper(record_of(image_file, annotation(0, 10, 80, 50, segmentation=outline)))["instances"]
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert_masks_fit(instances, recomputed=True)


def test_padding_is_no_object(image_file):
    """Detectron2's main branch pads segmentations with 255 where it crops beyond the image."""
    pad = T.PadTransform(0, 0, 20, 10, WIDTH, HEIGHT, 128, 255)
    mapper = SafeMapper(True, **arguments(augmentations=[pad], recompute_boxes=True))
    instances = mapper(record_of(image_file, annotation(segmentation=rle_of(10, 10))))["instances"]
    assert bits(instances).sum() == mask_of(10, 10).sum()
    assert instances.gt_boxes.tensor.tolist() == [[10, 10, 30, 26]]


BROKEN = {
    "short RLE": {"size": [HEIGHT, WIDTH], "counts": rle_of(10, 10)["counts"][:2]},
    "RLE of another size": {"size": [HEIGHT, WIDTH + 1], "counts": rle_of(10, 10)["counts"]},
    "counts of another size": {"size": [HEIGHT, WIDTH], "counts": [5, 10]},
    "negative counts": {"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]},
    "no counts": {"size": [HEIGHT, WIDTH]},
    "strange letters": {"size": [HEIGHT, WIDTH], "counts": "\u00e4\u00f6"},
    "two points": [[1, 2, 3, 4]],
    "NaN": [[1, 2, 3, float("nan"), 5, 6]],
    "text": [["a", "b", "c", "d", "e", "f"]],
    "number": 5,
    "wrong mask": np.ones((3, 4), np.uint8),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_outline_is_treated_as_missing(image_file, name):
    record = record_of(
        image_file, annotation(40, 30, segmentation=polygon_of(40, 30)), annotation(segmentation=BROKEN[name])
    )
    filled = SafeMapper(True, **arguments())(record)["instances"]
    np.testing.assert_array_equal(bits(filled)[1], mask_of(10, 10))
    assert len(SafeMapper(True, **arguments(missing_masks="drop"))(record)["instances"]) == 1
    with pytest.raises(InputError, match=r"a\.png: image 7, annotation 1: has .*; fix it") as caught:
        SafeMapper(True, **arguments(strict=True))(record)
    assert "\n" not in str(caught.value)


def test_objects_without_keypoints_are_unlabelled(image_file):
    points = [20.0, 20, 2, 30, 22, 2, 40, 30, 1]
    changes = {"use_keypoint": True, "keypoint_hflip_indices": FLIP, "use_instance_mask": False}
    mapper = SafeMapper(True, **arguments(**changes))
    instances = mapper(record_of(image_file, annotation(), annotation(keypoints=points)))["instances"]
    assert instances.gt_keypoints.tensor.tolist() == [[[0.0] * 3] * 3, np.reshape(points, (3, 3)).tolist()]
    assert mapper(record_of(image_file))["instances"].gt_keypoints.tensor.shape == (0, 3, 3)
    assert torch.equal(
        mapper(record_of(image_file, annotation(keypoints=[])))["instances"].gt_keypoints.tensor, torch.zeros(1, 3, 3)
    )
    with pytest.raises(InputError, match=r"a\.png: image 7: keypoints contain NaN"):
        SafeMapper(True, **arguments(strict=True, **changes))(
            record_of(image_file, annotation(keypoints=[float("nan")] * 9))
        )
    with pytest.raises(InputError, match=r"keypoints of different numbers: 2, 3"):
        SafeMapper(True, **arguments(strict=True, **changes))(record_of(image_file, annotation(keypoints=points[:6])))
