"""SafeMapper beside Detectron2's: the same on ordinary data, and right where the stock one fails."""

import pickle

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import PolygonMasks

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from maskrcnn_ext.data.mapping.shared_masks import SharedBitMasks
from tests.helpers.annotated_images import (
    AUGMENTATIONS,
    FLIP,
    HEIGHT,
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


def both(record, augmentations=AUGMENTATIONS, seed=0, **changes):
    results = []
    for mapper in (DatasetMapper, SafeMapper):
        np.random.seed(seed)
        results.append(mapper(True, **arguments(augmentations=augmentations, **changes))(record))
    return results


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("mask_format", "kind"), [("polygon", polygon_of), ("bitmask", polygon_of), ("bitmask", rle_of)]
)
@pytest.mark.parametrize("recompute_boxes", [False, True])
def test_ordinary_data_is_mapped_as_by_the_stock_mapper(image_file, mask_format, kind, recompute_boxes, seed):
    points = [20.0, 20, 2, 30, 22, 2, 0, 0, 0]
    record = record_of(
        image_file,
        annotation(5, 6, segmentation=kind(5, 6), keypoints=points),
        annotation(40, 30, segmentation=kind(40, 30), keypoints=points),
        annotation(1, 1, segmentation=rle_of(1, 1), iscrowd=1, keypoints=points),
        extra="kept",
    )
    changes = {"recompute_boxes": recompute_boxes, "use_keypoint": True, "keypoint_hflip_indices": FLIP}
    stock, ours = both(record, seed=seed, instance_mask_format=mask_format, **changes)
    assert set(stock) == set(ours)
    assert torch.equal(stock["image"], ours["image"])
    assert stock["image"].dtype == ours["image"].dtype == torch.uint8
    a, b = stock["instances"], ours["instances"]
    assert set(a.get_fields()) == set(b.get_fields()) - {"gt_unlabelled"}, "the stock mapper drops crowds"
    assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
    assert torch.equal(a.gt_classes, b.gt_classes)
    assert torch.equal(a.gt_keypoints.tensor, b.gt_keypoints.tensor)
    assert isinstance(b.gt_masks, type(a.gt_masks))
    if mask_format == "bitmask":
        assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)
    else:
        for first, second in zip(a.gt_masks, b.gt_masks, strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_record_is_left_as_it_was(image_file):
    record = record_of(image_file, annotation(segmentation=polygon_of(10, 10)), annotation(segmentation=rle_of(10, 10)))
    before = pickle.dumps(record)
    SafeMapper(True, **arguments(augmentations=AUGMENTATIONS))(record)
    assert pickle.dumps(record) == before


FAILURES = {
    "F2, no object": ([], {"recompute_boxes": True}, AttributeError, "gt_masks"),
    "F2, crowd": (
        [annotation(segmentation=rle_of(10, 10), iscrowd=1)],
        {"recompute_boxes": True},
        AttributeError,
        "gt_masks",
    ),
    "F3, later": ([annotation(segmentation=polygon_of(10, 10)), annotation(40, 30)], {}, KeyError, "segmentation"),
    "F4": ([annotation(segmentation=rle_of(10, 10))], {}, ValueError, "mask_format=='polygon'"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_where_the_stock_mapper_fails(image_file, name):
    annotations, changes, error, message = FAILURES[name]
    record = record_of(image_file, *annotations)
    with pytest.raises(error, match=message):
        DatasetMapper(True, **arguments(**changes))(record)
    instances = SafeMapper(True, **arguments(**changes))(record)["instances"]
    count = sum(not a["iscrowd"] for a in annotations)
    assert len(instances) == len(instances.gt_masks) == len(instances.gt_boxes) == count
    assert_masks_fit(instances, recomputed=True)


def test_where_the_stock_mapper_drops_all_masks_silently(image_file):
    """F3: the first annotation has no outline."""
    record = record_of(image_file, annotation(), annotation(40, 30, segmentation=polygon_of(40, 30)))
    stock, ours = both(record, augmentations=[])
    assert not stock["instances"].has("gt_masks")
    assert len(ours["instances"].gt_masks) == 2
    masks = bits(ours["instances"])
    np.testing.assert_array_equal(masks[0], mask_of(10, 10))
    assert 200 <= masks[1].sum() <= 300, "the triangle-cut outline, not the box of 320"


def test_images_that_are_not_8_bit_colours_are_augmented_as_numbers(tmp_path, image_file):
    values = np.random.default_rng(0).integers(0, 60000, (HEIGHT, WIDTH, 5)).astype(np.uint16)
    np.save(tmp_path / "a.npy", values)
    record = record_of(tmp_path / "a.npy", annotation(segmentation=polygon_of(10, 10)))
    flip = T.HFlipTransform(WIDTH)
    image = SafeMapper(True, **arguments(image_format="raw", augmentations=[flip]))(record)["image"]
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.numpy(), values[:, ::-1].transpose(2, 0, 1))
    resized = SafeMapper(True, **arguments(image_format="raw", augmentations=[T.ResizeShortestEdge(30)]))(record)[
        "image"
    ]
    assert resized.shape == (5, 30, 40)
    # Four channels of 8 bits are no transparency: a channel of zeros at the end takes nothing from the others.
    bytes_ = np.concatenate(
        [np.full((HEIGHT, WIDTH, 3), 200, np.uint8), np.zeros((HEIGHT, WIDTH, 1), np.uint8)], axis=2
    )
    np.save(tmp_path / "a.npy", bytes_)
    image = SafeMapper(True, **arguments(image_format="raw", augmentations=[T.ResizeShortestEdge(30)]))(record)["image"]
    assert image[:3].unique().tolist() == [200]


AUGMENTATIONS_OF_PIXELS = {
    "brightness": T.RandomBrightness(0.9, 0.9),
    "short edge": T.ResizeShortestEdge(30),
    "rotation": T.RandomRotation([30, 30]),
    "fixed size": T.FixedSizeCrop([100, 100], pad_value=-5),
    "scale": T.ResizeScale(0.5, 0.5, HEIGHT, WIDTH),
    "extent of a crop": T.RandomCrop("absolute", (20, 30)),
}


@pytest.mark.parametrize("name", AUGMENTATIONS_OF_PIXELS)
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_deep_images_keep_channels_and_range_in_every_augmentation(tmp_path, name, channels):
    values = np.random.default_rng(0).integers(30000, 60000, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    np.save(tmp_path / "a.npy", values)
    mapper = SafeMapper(
        True, **arguments(image_format="raw", augmentations=[AUGMENTATIONS_OF_PIXELS[name]], strict=True)
    )
    image = mapper(record_of(tmp_path / "a.npy", annotation(segmentation=polygon_of(10, 10))))["image"]
    assert image.shape[0] == channels
    assert image.dtype == torch.float32
    expected = 45000 * (0.9 if name == "brightness" else 1)
    inside = image[image > 20000]  # neither padding nor what a rotation leaves open
    assert inside.numel() >= channels * 20 * 30
    assert abs(float(inside.mean()) - expected) < 1500
    assert float(image.max()) <= 60000
    if name == "fixed size":
        np.testing.assert_array_equal(image[:, :HEIGHT, :WIDTH], values.transpose(2, 0, 1))
        assert (image[:, HEIGHT:] == -5).all()


def test_evaluation_reads_no_annotations_and_refuses_bad_images(image_file, tmp_path):
    mapper = SafeMapper(False, augmentations=[T.ResizeShortestEdge(30)], image_format="BGR")
    mapped = mapper(record_of(image_file, annotation(segmentation=5)))
    assert mapped["image"].shape == (3, 30, 40)
    assert "instances" not in mapped
    assert "annotations" not in mapped
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        mapper(record_of(tmp_path / "gone.png"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"width": 81}, r"the image is 80 x 60, its annotations are for 81 x 60 .*check-data"),
        ({"annotations": [{"bbox": [1, 2, 3, 4], "category_id": 1}]}, r"image 7, annotation 0: `bbox`, `bbox_mode`"),
        ({"annotations": [annotation(bbox=[1, 2, 3])]}, r"annotation 0: `bbox`"),
        ({"annotations": [annotation(bbox=[1, float("nan"), 3, 4])]}, r"annotation 0: `bbox`.* NaN"),
        ({"annotations": [annotation(bbox=None)]}, r"annotation 0: `bbox`"),
        ({"annotations": [annotation(category_id=None)]}, r"annotation 0: `bbox`"),
    ],
)
def test_a_record_that_cannot_be_used_is_skipped_or_named(image_file, record, message):
    record = {**record_of(image_file), **record}
    mapper = SafeMapper(True, **arguments())
    assert mapper(record) is None
    (reason,) = mapper.bad_images.listed().values()
    with pytest.raises(InputError, match=message) as caught:
        SafeMapper(True, **arguments(strict=True))(record)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instance_mask_format": "rle"}, "expected polygon or bitmask"),
        ({"missing_masks": "ignore"}, "expected box, box-only or drop"),
        ({"use_instance_mask": False, "recompute_boxes": True}, "needs use_instance_mask=true"),
        ({"max_bad_share": 2}, "a share from 0 to 1"),
    ],
)
def test_arguments_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        SafeMapper(True, **arguments(**changes))


def test_polygons_and_bit_masks_of_different_images_make_one_batch(image_file):
    """Detectron2's mask loss and the package's heads crop the masks image by image."""
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
    from detectron2.structures import Boxes
    from detectron2.utils.events import EventStorage

    from maskrcnn_ext import FCNMaskHead

    mapper = SafeMapper(True, **arguments())
    batch = [
        mapper(record_of(image_file, annotation(segmentation=segmentation)))["instances"]
        for segmentation in (polygon_of(10, 10), rle_of(10, 10))
    ]
    assert [type(image.gt_masks) for image in batch] == [PolygonMasks, SharedBitMasks]
    for image in batch:
        image.proposal_boxes = Boxes(image.gt_boxes.tensor + 1)
    features = torch.rand(2, 4, 14, 14)
    for head in (MaskRCNNConvUpsampleHead, FCNMaskHead):
        with EventStorage():
            losses = head(ShapeSpec(channels=4, height=14, width=14), num_classes=2, conv_dims=[4, 4])(features, batch)
        assert torch.isfinite(sum(losses.values()))


@pytest.mark.realdata
@pytest.mark.parametrize("folder", ["coco_open", "fruits_nuts", "kudzu_bugs", "nuclei_stardist"])
def test_real_data_keeps_all_objects(real_data, folder):
    records = get_dataset_dicts(
        f"coco:{real_data / folder / 'instances_val.json'}@{real_data / folder}", filter_empty=False
    )
    mapper = SafeMapper(True, **arguments(strict=True, recompute_boxes=True))
    for record in records[:6]:
        instances = mapper(record)["instances"]
        assert len(instances) == sum(not a["iscrowd"] for a in record["annotations"])
        visible = [index for index, mask in enumerate(bits(instances)) if mask.any()]
        assert_masks_fit(instances[visible], recomputed=True)


def unlabelled_of(record, **changes):
    found = SafeMapper(True, **arguments(**changes))(record)["instances"]
    return found, found.gt_unlabelled if found.has("gt_unlabelled") else None


def test_crowds_are_ignore_regions_and_labelled_pixels_are_none(image_file):
    crowd = annotation(30, 20, segmentation=rle_of(30, 20), iscrowd=1)
    record = record_of(
        image_file,
        annotation(40, 24, segmentation=polygon_of(40, 24)),
        crowd,
        {**crowd, "category_id": 0},  # of every class
        annotation(2, 40, w=10, h=8, iscrowd=1),  # a box alone
        annotation(2, 2, w=10, h=8, iscrowd=1, segmentation={"size": [1, 1], "counts": "broken"}),
    )
    found, unlabelled = unlabelled_of(record, instance_mask_format="bitmask")
    expected = mask_of(30, 20) | mask_of(2, 40, 10, 8) | mask_of(2, 2, 10, 8)
    assert len(found) == len(unlabelled) == 1
    assert np.array_equal(unlabelled.region.mask.numpy(), expected & ~bits(found)[0])
    assert unlabelled.labelled_classes is None
    _, of_flipped = unlabelled_of(record, instance_mask_format="bitmask", augmentations=[T.RandomFlip(1.0)])
    assert np.array_equal(of_flipped.region.mask.numpy(), (expected & ~bits(found)[0])[:, ::-1])
    crop = [T.CropTransform(25, 15, 40, 30), T.ResizeTransform(30, 40, 60, 80)]
    cut, of_cut = unlabelled_of(record, augmentations=crop)
    enlarged = expected[15:45, 25:65].repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(of_cut.region.mask.numpy(), enlarged & ~bits(cut)[0])
    assert unlabelled_of(record, augmentations=[T.CropTransform(60, 0, 20, 20)])[1] is None, "no region is left"


def test_labelled_classes_and_images_without_objects(image_file):
    record = record_of(image_file, annotation(30, 20, segmentation=rle_of(30, 20), iscrowd=1), labelled_classes=[0, 2])
    found, unlabelled = unlabelled_of(record)
    assert len(found) == len(unlabelled) == 0
    assert unlabelled.labelled_classes.tolist() == [0, 2]
    assert unlabelled.region.mask.sum() == 20 * 16
    assert len(pickle.loads(pickle.dumps(found)).gt_unlabelled) == 0
    assert unlabelled_of(record_of(image_file, labelled_classes=[]))[1].region is None
    with pytest.raises(InputError, match="`bbox` or `bbox_mode` of a crowd is missing or broken"):
        SafeMapper(True, **arguments(strict=True))(record_of(image_file, {"iscrowd": 1, "category_id": 0}))


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_an_object_without_mask_trains_its_box_alone(image_file, mask_format):
    record = record_of(
        image_file,
        annotation(5, 6, segmentation=polygon_of(5, 6)),
        annotation(40, 30),
        annotation(50, 5, segmentation=[]),
        annotation(0, 50, w=4, h=4),
    )
    options = {
        "missing_masks": "box-only",
        "instance_mask_format": mask_format,
        "recompute_boxes": True,
        "strict": True,
    }
    found = SafeMapper(True, **arguments(**options))(record)["instances"]
    assert found.gt_has_mask.tolist() == [True, False, False, False]
    assert found.gt_boxes.tensor[1:].tolist() == [[40, 30, 60, 46], [50, 5, 70, 21], [0, 50, 4, 54]]
    assert bits(found).any(axis=(1, 2)).tolist() == [True, False, False, False]
    cropped = [T.CropTransform(30, 0, 50, 50)]
    found = SafeMapper(True, **arguments(**options, augmentations=cropped))(record)["instances"]
    assert found.gt_has_mask.tolist() == [False, False], "what the crop does not show is left out"
    assert found.gt_boxes.tensor.tolist() == [[10, 30, 30, 46], [20, 5, 40, 21]]
    plain = SafeMapper(True, **arguments(**options))(record_of(image_file, record["annotations"][0]))["instances"]
    assert not plain.has("gt_has_mask")
    broken = record_of(image_file, annotation(5, 6, segmentation=[[1, 2]]))
    with pytest.raises(InputError, match="no polygon"):
        SafeMapper(True, **arguments(**options))(broken)


def test_a_broken_mask_trains_the_box_alone_with_a_warning(image_file, caplog):
    broken = record_of(image_file, annotation(5, 6, segmentation=[[1, 2]]))
    found = SafeMapper(True, **arguments(missing_masks="box-only"))(broken)["instances"]
    assert found.gt_has_mask.tolist() == [False]


def test_labelled_points_move_with_the_image(image_file):
    record = record_of(
        image_file,
        annotation(10, 10, point_coords=[[12.5, 14.5], [25.5, 11.5], [11.5, 20.5]], point_labels=[1, 0, 1]),
        annotation(40, 30, point_coords=[[45.5, 35.5]], point_labels=[0]),
        annotation(50, 5),
    )
    options = {"missing_masks": "box-only", "augmentations": [T.CropTransform(12, 5, 60, 50), T.HFlipTransform(60)]}
    options["point_share"] = 1
    before = [entry["point_coords"] for entry in record["annotations"] if "point_coords" in entry]
    found = SafeMapper(True, **arguments(**options))(record)["instances"]
    assert found.gt_point_labels.tolist() == [[1, 0, -1], [0, -1, -1], [-1, -1, -1]]
    assert found.gt_point_coords[0, :2].tolist() == [[59.5, 9.5], [46.5, 6.5]]
    assert found.gt_point_coords[1, 0].tolist() == [26.5, 30.5]
    assert before == [entry["point_coords"] for entry in record["annotations"] if "point_coords" in entry]
    record["annotations"][0]["point_labels"] = [1]
    with pytest.raises(InputError, match="`point_coords` and `point_labels` do not fit: 3 and 1"):
        SafeMapper(True, **arguments(strict=True, **options))(record)


def test_a_random_half_of_the_points_is_trained(image_file):
    places = [[11.5 + i, 12.5] for i in range(5)]
    record = record_of(
        image_file,
        annotation(10, 10, point_coords=places, point_labels=[1] * 5),
        annotation(40, 30, point_coords=[[45.5, 35.5]], point_labels=[0]),
    )
    mapper = SafeMapper(True, **arguments(missing_masks="box-only"))
    np.random.seed(0)
    labels = torch.stack([mapper(record)["instances"].gt_point_labels for _ in range(60)])
    assert (labels[:, 0] == 1).sum(dim=1).unique().tolist() == [3]  # half of five, rounded up
    assert (labels[:, 0] == 1).any(dim=0).all()
    assert (labels[:, 1, 0] == 0).all()
    with pytest.raises(InputError, match="point_share=0: expected a share above 0"):
        SafeMapper(True, **arguments(point_share=0))


def test_the_image_of_the_objects(image_file):
    mapped = SafeMapper(True, **arguments(keep_image=True, augmentations=[T.RandomFlip(1.0)]))(
        record_of(image_file, annotation(5, 6, segmentation=polygon_of(5, 6)))
    )
    assert mapped["instances"].gt_image.pixels is mapped["image"]
    assert mapped["instances"].gt_image.is_bgr
