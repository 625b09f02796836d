"""Albumentations among Detectron2's augmentations, box against mask, flips of keypoints, and seeds for any number of workers."""

import copy
import os
import sys

import cv2
import detectron2.data.transforms as T
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetMapper
from detectron2.structures import BoxMode
from detectron2.structures.masks import polygons_to_bitmask
from omegaconf import OmegaConf

from maskrcnn_ext import InputError, get_config, get_dataset_dicts
from maskrcnn_ext.data.mapping.augmentation import AlbumentationsAugmentation
from maskrcnn_ext.data.mapping.augmentation.mixing import tight_boxes
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from maskrcnn_ext.data.registry.keypoints import hflip_indices

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
A = pytest.importorskip("albumentations")

HEIGHT, WIDTH = 80, 120
# An L, a bar at the edge and a square, all of whole pixels.
OUTLINES = [
    [20, 10, 60, 10, 60, 26, 40, 26, 40, 60, 20, 60],
    [0, 64, 90, 64, 90, 76, 0, 76],
    [70, 20, 100, 20, 100, 50, 70, 50],
]
AUGMENTATIONS = {
    "flip": [T.RandomFlip(horizontal=True)],
    "vertical flip": [T.RandomFlip(horizontal=False, vertical=True)],
    "resize": [T.ResizeShortestEdge([50, 90, 130], 400, "choice")],
    "crop": [T.RandomCrop("relative_range", (0.5, 0.5))],
    "LSJ": [T.ResizeScale(0.3, 2.0, 96, 96), T.FixedSizeCrop([96, 96]), T.RandomFlip()],
    "rotation": [T.RandomRotation([-40, 40])],
    "albumentations affine": [
        AlbumentationsAugmentation(
            [A.Affine(scale=(0.6, 1.5), rotate=(-40, 40), shear=(-10, 10), translate_percent=0.1, p=1), A.Transpose()]
        )
    ],
}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """An image whose objects have a colour each, as polygons."""
    pixels = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    annotations = []
    for index, outline in enumerate(OUTLINES):
        xs, ys = outline[0::2], outline[1::2]
        mask = mask_util.decode(mask_util.frPyObjects([outline], HEIGHT, WIDTH))[..., 0] > 0
        pixels[mask] = 90 + 60 * index
        box = [min(xs), min(ys), max(xs), max(ys)]
        middle = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, 2]
        annotations.append(
            {
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": index,
                "segmentation": [outline],
                "keypoints": [box[0] + 2, middle[1], 2, box[2] - 2, middle[1], 2],
            }
        )
    file = tmp_path_factory.mktemp("image") / "a.png"
    cv2.imwrite(str(file), pixels)
    return {"file_name": str(file), "height": HEIGHT, "width": WIDTH, "image_id": 1, "annotations": annotations}


def as_rle(record):
    record = copy.deepcopy(record)
    for annotation in record["annotations"]:
        annotation["segmentation"] = mask_util.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH)[0]
    return record


def make_mapper(augmentations, mask_format, **rest):
    return DatasetMapper(
        True,
        augmentations=augmentations,
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format=mask_format,
        **rest,
    )


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_box_polygon_and_mask_of_50_seeds_agree_to_a_pixel(record, name):
    by_polygon = make_mapper(AUGMENTATIONS[name], "polygon", recompute_boxes=True)
    by_mask = make_mapper(AUGMENTATIONS[name], "bitmask", recompute_boxes=True)
    compared, rle = 0, as_rle(record)
    for seed in range(50):
        results = []
        for mapper, source in ((by_polygon, record), (by_mask, rle)):
            np.random.seed(seed)
            results.append(mapper(source))
        assert torch.equal(results[0]["image"], results[1]["image"])
        polygons, masks = (result["instances"] for result in results)
        assert torch.equal(masks.gt_boxes.tensor, tight_boxes(masks.gt_masks.tensor))
        gray = results[1]["image"][0]
        # Of a corner more pointed than a pixel, no raster shows the tip.
        drawn = polygons.gt_masks.polygons
        raster = (
            torch.from_numpy(np.stack([polygons_to_bitmask(p, *gray.shape) for p in drawn]))
            if drawn
            else gray[:0, None]
        )
        boxes = dict(zip(polygons.gt_classes.tolist(), tight_boxes(raster.bool()), strict=True))
        for category, box, mask in zip(masks.gt_classes.tolist(), masks.gt_boxes.tensor, masks.gt_masks, strict=True):
            if mask.sum() >= 40:  # of a smaller piece, interpolation leaves little of the colour; colours are 60 apart
                assert (gray[mask].float() - (90 + 60 * category)).abs().median() < 25
            if min(box[2] - box[0], box[3] - box[1]) > 2 or category in boxes:
                assert (boxes[category] - box).abs().max() <= 1
                compared += 1
    assert compared > 80


@pytest.mark.parametrize(
    ("theirs", "native"),
    [
        (lambda: A.HorizontalFlip(p=1), T.HFlipTransform(WIDTH)),
        (lambda: A.VerticalFlip(p=1), T.VFlipTransform(HEIGHT)),
        (lambda: A.Crop(30, 20, 90, 70), T.CropTransform(30, 20, 60, 50)),
        (lambda: A.PadIfNeeded(100, 140, position="top_left", fill=0), T.PadTransform(0, 0, 20, 20)),
    ],
    ids=["horizontal flip", "vertical flip", "crop", "pad"],
)
def test_transforms_of_both_libraries_are_equal(record, theirs, native):
    image = cv2.imread(record["file_name"])
    mask = mask_util.decode(mask_util.frPyObjects([OUTLINES[0]], HEIGHT, WIDTH))[..., 0]
    augmented = T.AugInput(image, sem_seg=mask)
    transform = AlbumentationsAugmentation([theirs()])(augmented)
    assert np.array_equal(augmented.image, native.apply_image(image))
    assert np.array_equal(augmented.sem_seg, native.apply_segmentation(mask))
    points = np.array([[31.0, 22.0], [70.5, 44.25], [50.0, 66.0]])
    np.testing.assert_allclose(transform.apply_coords(points), native.apply_coords(points.copy()), atol=1e-4)
    boxes = np.array([[35.0, 25.0, 60.0, 50.0]])
    np.testing.assert_allclose(transform.apply_box(boxes), native.apply_box(boxes.copy()), atol=1e-4)
    polygons = [np.array(OUTLINES[0], float).reshape(-1, 2)]
    ours, native_polygons = transform.apply_polygons(polygons), native.apply_polygons([polygons[0].copy()])
    size = augmented.image.shape[:2]
    overlap = [mask_util.frPyObjects([p[0].flatten().tolist()], *size)[0] for p in (ours, native_polygons)]
    assert mask_util.iou(overlap[:1], overlap[1:], [0]) > 0.999


@pytest.mark.parametrize("size", [(40, 60), (240, 360)])
def test_a_resize_moves_points_about_the_corner_of_the_image_not_of_the_first_pixel(size):
    transform = AlbumentationsAugmentation([A.Resize(*size)]).get_transform(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    points = np.array([[0.0, 0.0], [WIDTH, HEIGHT], [33.0, 44.0]])
    np.testing.assert_allclose(transform.apply_coords(points), points * size[0] / HEIGHT, atol=0.05)


def test_bent_images_take_masks_boxes_and_keypoints_along_but_no_polygons(record):
    augmentation = AlbumentationsAugmentation([A.ElasticTransform(alpha=60, sigma=6, p=1), A.HueSaturationValue(p=0)])
    with pytest.raises(InputError, match="instance_mask_format=bitmask"):
        make_mapper([augmentation], "polygon")(record)

    source = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:60, 30:80] = 1
    source[mask > 0] = 200
    for seed in range(10):
        np.random.seed(seed)
        augmented = T.AugInput(source, boxes=np.array([[30.0, 20.0, 80.0, 60.0]]), sem_seg=mask)
        transform = augmentation(augmented)
        assert transform.bends
        shown = augmented.image[..., 0] > 100
        assert (shown != (augmented.sem_seg > 0)).mean() < 0.01
        expected = tight_boxes(torch.from_numpy(augmented.sem_seg[None] > 0))[0]
        np.testing.assert_allclose(augmented.boxes[0], expected, atol=1)
        # A single bright pixel shows where a keypoint goes.
        dot = np.zeros((HEIGHT, WIDTH), np.uint8)
        dot[38:43, 48:53] = 1
        rows, columns = np.nonzero(transform.apply_segmentation(dot))
        (point,) = transform.apply_coords(np.array([[50.5, 40.5]]))
        assert np.abs(point - [columns.mean() + 0.5, rows.mean() + 0.5]).max() < 1.5


def test_objects_moved_out_of_the_image_are_removed(record):
    away = AlbumentationsAugmentation([A.Affine(translate_px=(400, 400), p=1)])
    for mask_format, source in (("polygon", record), ("bitmask", as_rle(record))):
        mapped = make_mapper([away], mask_format, use_keypoint=True)(source)
        assert len(mapped["instances"]) == 0
        assert mapped["image"].shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["HorizontalFlip", "Transpose"])
def test_a_mirrored_image_exchanges_left_and_right_keypoints(record, name):
    mapper = make_mapper(
        [AlbumentationsAugmentation([getattr(A, name)(p=1)])],
        "polygon",
        use_keypoint=True,
        keypoint_hflip_indices=[1, 0],
    )
    for before, after in zip(record["annotations"], mapper(record)["instances"].gt_keypoints.tensor, strict=True):
        left, right = np.array(before["keypoints"]).reshape(2, 3)[:, :2]
        mirrored = name == "HorizontalFlip"
        expected = [(WIDTH - x, y) if mirrored else (y, x) for x, y in (right, left)]
        np.testing.assert_allclose(after[:, :2], expected, atol=1e-3)


def test_a_rotation_or_two_flips_exchange_nothing(record):
    for transforms in ([A.Rotate((90, 90), p=1)], [A.HorizontalFlip(p=1), A.VerticalFlip(p=1)]):
        mapper = make_mapper([AlbumentationsAugmentation(transforms)], "polygon", use_keypoint=True)
        assert len(mapper(record)["instances"]) > 0  # without hflip_indices, an exchange is an error


def test_keypoints_of_a_data_set_flip_by_its_own_names(people):
    records = get_dataset_dicts(people)
    indices = hflip_indices(people)
    pairs = [[T.RandomFlip(prob=1.0)], [AlbumentationsAugmentation([A.HorizontalFlip(p=1)])]]
    native, ours = (
        make_mapper(pair, "polygon", use_keypoint=True, keypoint_hflip_indices=indices)(records[0])["instances"]
        for pair in pairs
    )
    torch.testing.assert_close(ours.gt_keypoints.tensor, native.gt_keypoints.tensor, atol=1e-3, rtol=0)
    left_eye = ours.gt_keypoints.tensor[0, 1, 0]
    right_eye_before = records[0]["annotations"][0]["keypoints"][2 * 3]
    assert float(left_eye) == pytest.approx(records[0]["width"] - right_eye_before, abs=1.01)


def test_members_of_a_pipeline_draw_apart_and_numpys_seed_decides():
    augmentation = AlbumentationsAugmentation([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    def draw(seed):
        np.random.seed(seed)
        return augmentation.get_transform(image).apply_image(image)

    draws = [draw(seed) for seed in range(40)]
    assert {int(done[0, 0, 0]) for done in draws} == {0, 3, 6, 9}
    assert all(np.array_equal(done, draw(seed)) for seed, done in enumerate(draws))


def test_colours_are_those_of_rgb():
    gray = A.ToGray(p=1)
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 255  # blue, of a BGR image
    bgr, rgb = (
        AlbumentationsAugmentation([gray], image_format=name).get_transform(image).apply_image(image)[0, 0]
        for name in ("BGR", "RGB")
    )
    assert bgr[0] == pytest.approx(0.114 * 255, abs=1)
    assert rgb[0] == pytest.approx(0.299 * 255, abs=1)


def test_an_image_that_is_not_of_bytes_keeps_its_range():
    image = np.linspace(-1000, 3000, 5 * 8 * 8, dtype=np.float32).reshape(8, 8, 5)
    flipped = AlbumentationsAugmentation([A.HorizontalFlip(p=1)]).get_transform(image).apply_image(image)
    np.testing.assert_allclose(flipped, image[:, ::-1], atol=0.01)
    assert flipped.dtype == np.float32


def test_errors_of_a_member_name_the_file(record):
    for transform, message in (
        (A.RandomCrop(500, 500, p=1), "CropSizeError: Crop size"),
        (A.ToGray(num_output_channels=1, p=1), "type and channels must stay"),
        (A.Lambda(image=lambda image, **_: image / 255, p=1), "type and channels must stay"),
    ):
        mapper = SafeMapper(
            True, augmentations=[AlbumentationsAugmentation([transform])], image_format="BGR", strict=True
        )
        with pytest.raises(
            InputError, match=r"a\.png: an augmentation cannot take the image \(120 x 80, 3 .*" + message
        ) as caught:
            mapper(record)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["nodes", "dict"])
def test_a_config_with_a_pipeline_survives_its_yaml(record, tmp_path, form):
    members = [A.Affine(rotate=(-30, 30), p=1), A.OneOf([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)], p=0.5)]
    nodes = [
        L(A.Affine)(rotate=[-30, 30], p=1),
        L(A.OneOf)(transforms=[L(A.HorizontalFlip)(p=1), L(A.VerticalFlip)(p=1)], p=0.5),
    ]
    pipeline = members if form == "nodes" else A.Compose(members)
    transforms = nodes if form == "nodes" else A.to_dict(pipeline)
    cfg = OmegaConf.create(
        {"mapper": L(DatasetMapper)(is_train=True, augmentations=[], image_format="BGR", use_instance_mask=True)},
        flags={"allow_objects": True},
    )
    cfg.mapper.augmentations = [
        L(T.RandomFlip)(horizontal=True),
        L(AlbumentationsAugmentation)(transforms=transforms, image_format="${...image_format}"),
    ]
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    assert not (tmp_path / "config.yaml.pkl").exists()
    by_hand = make_mapper([T.RandomFlip(), AlbumentationsAugmentation(pipeline)], "polygon")
    images = []
    for mapper in (
        instantiate(cfg.mapper),
        instantiate(LazyConfig.load(str(tmp_path / "config.yaml")).mapper),
        by_hand,
    ):
        np.random.seed(3)
        images.append(mapper(record)["image"])
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_unsupported_transforms_are_errors_of_one_line():
    with pytest.raises(InputError, match="RandomFlip is not an Albumentations transform"):
        AlbumentationsAugmentation([T.RandomFlip()])
    with pytest.raises(InputError, match="BBoxSafeRandomCrop needs more than the image"):
        AlbumentationsAugmentation([A.OneOf([A.BBoxSafeRandomCrop()])])
    with pytest.raises(InputError, match="MaskDropout needs more than the image"):
        AlbumentationsAugmentation(A.MaskDropout())
    for name in ("Normalize", "ToFloat"):  # of bytes they would make zeros
        with pytest.raises(InputError, match=f"leave {name} out: the model takes"):
            AlbumentationsAugmentation([A.HorizontalFlip(), getattr(A, name)()])
    with pytest.raises(InputError, match=r"not a result of albumentations\.to_dict"):
        AlbumentationsAugmentation({"transform": {"__class_fullname__": "NoSuchTransform"}})


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(InputError, match=r'pip install "maskrcnn_ext\[albumentations\]"'):
        AlbumentationsAugmentation([])


def test_large_scale_jitter_of_the_shipped_config_gives_boxes_of_masks(people):
    cfg = get_config("common/data/coco_lsj.py")
    cfg.dataloader.train.mapper.instance_mask_format = "bitmask"
    mapper = instantiate(cfg.dataloader.train.mapper)
    np.random.seed(0)
    for record in get_dataset_dicts(people):
        mapped = mapper(record)
        assert mapped["image"].shape == (3, 1024, 1024)
        assert torch.equal(mapped["instances"].gt_boxes.tensor, tight_boxes(mapped["instances"].gt_masks.tensor))
