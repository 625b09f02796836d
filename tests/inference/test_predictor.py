"""Prediction in Python: the kind of input and the batch do not change the result of an image."""

import io

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import GeneralizedRCNN
from PIL import Image
from pycocotools import mask as mask_util

from maskrcnn_ext import InputError, Predictor
from tests.helpers.small_model import make_run, same

SIZES = ((96, 96), (60, 100), (100, 60), (60, 100), (96, 96), (60, 101), (96, 96))


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor(run, device="cpu")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = (rng.integers(0, 255, (5, 5, 3), dtype=np.uint8) for _ in SIZES)
    return [cv2.resize(own, size[::-1]) for own, size in zip(coarse, SIZES, strict=True)]


@pytest.fixture(scope="module")
def alone(predictor, images):
    return [predictor(image) for image in images]


@pytest.mark.parametrize("batch_size", [2, 3, 100])
def test_batches_of_several_sizes_equal_single_calls(predictor, images, alone, batch_size):
    found = list(predictor.predict(images, batch_size=batch_size))
    assert len(found) == len(images)
    for one, own, image in zip(found, alone, images, strict=True):
        assert one.image_size == image.shape[:2]
        assert len(own) > 0
        # Masks of random weights are noise, of which rounding may turn a pixel.
        overlaps = mask_util.iou(one.pred_masks.rles, own.pred_masks.rles, [0] * len(own)).diagonal()
        assert min(overlaps) > 0.99
        same(one, own, masks=False)


def test_images_of_one_size_share_a_batch_and_few_wait(predictor, images):
    batches, read = [], 0
    model = predictor.model

    def noted(inputs, **kwargs):
        batches.append(len(inputs))
        return type(model).inference(model, inputs, **kwargs)

    def counted():
        nonlocal read
        for number in range(24):
            read += 1
            yield images[number % 2]

    model.inference = noted
    try:
        for done, _ in enumerate(predictor.predict(counted(), batch_size=4)):
            assert read - done <= 4 * 4 + 1
    finally:
        del model.inference
    assert batches == [4] * 6


def test_the_result_equals_detectron2s(run, predictor, photo):
    cfg = LazyConfig.load(str(run / "config.yaml"))
    model = instantiate(cfg.model).eval()
    model.load_state_dict(torch.load(run / "model_final.pth")["model"])
    assert type(model) is GeneralizedRCNN
    record = instantiate(cfg.dataloader.test.mapper)(
        {"file_name": str(photo), "image_id": 1, "height": 96, "width": 96}
    )
    with torch.no_grad():
        expected = model([record])[0]["instances"]
    found = predictor(photo)
    assert torch.equal(found.pred_masks.to_dense(), expected.pred_masks)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(found.scores, expected.scores)


def test_every_kind_of_image_is_the_same_image(predictor, photo):
    pixels = cv2.imread(str(photo))
    expected = predictor(photo)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    for image in (
        str(photo),
        pixels,
        png,
        bytearray(png),
        Image.open(photo),
        Image.open(io.BytesIO(png)).convert("RGBA"),
        {"file_name": str(photo)},
    ):
        same(predictor(image), expected, atol=0)
    window = predictor({"file_name": str(photo), "window": [10, 20, 60, 40]})
    same(window, predictor(np.ascontiguousarray(pixels[20:60, 10:70])), atol=0)


def test_grey_images_of_every_kind_are_one(predictor, tmp_path):
    grey = cv2.resize(np.random.default_rng(1).integers(0, 255, (6, 6), dtype=np.uint8), (80, 70))
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    expected = predictor(np.repeat(grey[:, :, None], 3, axis=2))
    assert len(expected) > 0
    for image in (grey, grey[:, :, None], Image.fromarray(grey), tmp_path / "grey.png"):
        same(predictor(image), expected, atol=0)


def test_one_channel_of_16_bits_keeps_its_values(tmp_path, spec):
    safe = "dataloader.test.mapper._target_=maskrcnn_ext.SafeMapper"
    raw = "dataloader.test.mapper.image_format=raw"
    run = make_run(
        tmp_path,
        spec,
        safe,
        raw,
        "model.pixel_mean=[30000.]",
        "model.pixel_std=[9000.]",
        "model.backbone.bottom_up.stem.in_channels=1",
    )
    predictor = Predictor(run, device="cpu")
    deep = cv2.resize(np.random.default_rng(2).integers(0, 65535, (6, 6), dtype=np.uint16), (90, 60))
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    found = predictor(tmp_path / "deep.png")
    assert len(found) > 0
    same(found, predictor(deep), atol=0)
    same(found, predictor(Image.open(tmp_path / "deep.png")), atol=0)
    # 8 bits of it are another image.
    coarse = predictor((deep & 0xFF00).astype(np.uint16) + 128)
    assert coarse.scores.tolist() != found.scores.tolist()
    prepared = predictor.prepare(predictor.pixels(tmp_path / "deep.png"))["image"]
    assert prepared.shape[0] == 1
    assert prepared.dtype == torch.float32
    assert prepared.max() > 40000


def test_an_image_without_objects(run, photo):
    none = Predictor(run, device="cpu", overrides=["model.roi_heads.box_predictor.test_score_thresh=1.5"])(photo)
    assert len(none) == len(none.pred_masks) == 0
    assert none.image_size == (96, 96)
    assert none.pred_boxes.tensor.shape == (0, 4)


def test_no_images_yield_nothing(predictor):
    assert list(predictor.predict([])) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("gone.jpg", "gone.jpg"),
        (b"no image", "an image of 8 bytes: not an image"),
        (b"", "an image of 0 bytes: not an image"),
        (np.zeros((4, 4, 2), np.uint8), "2 channels"),
        (np.zeros((0, 4, 3), np.uint8), "not an image"),
        (np.zeros(4), "not an image"),
        (np.full((4, 4, 3), np.nan), "NaN or infinite"),
        (7, "int is not an image"),
    ],
    ids=str,
)
def test_other_inputs_are_refused_in_one_line(predictor, image, message):
    with pytest.raises(InputError, match=message) as caught:
        predictor(image)
    assert "\n" not in str(caught.value)


def test_keypoints_are_predicted_and_named(tmp_path, people):
    overrides = ["model.roi_heads.num_classes=1", f"dataloader.train.dataset.names={people}"]
    run = make_run(tmp_path, people, *overrides, config="keypoint_rcnn_r18_fpn_scratch.py")
    predictor = Predictor(run, device="cpu")
    file = people.rpartition("@")[2] + "/1.png"
    found = predictor(file)
    assert found.pred_keypoints.shape == (len(found), 17, 3)
    assert not found.has("pred_masks")
    assert len(found) > 0
    assert predictor.classes.keypoint_names[0] == "nose"
    assert predictor.classes.skeleton == ((0, 1),)
    (batched, _) = predictor.predict([file, file], batch_size=2)
    torch.testing.assert_close(batched.pred_keypoints, found.pred_keypoints, atol=1e-3, rtol=0)


def test_autocast_computes_in_bf16_and_returns_float32(run, photo, predictor):
    coarse = Predictor(run, device="cpu", dtype="bf16")
    seen = []
    coarse.model.roi_heads.mask_head.register_forward_hook(lambda *passed: seen.append(passed[2][0].pred_masks))
    found, exact = coarse(photo), predictor(photo)
    assert seen[0].dtype == torch.bfloat16
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32
    assert found.scores[0] == pytest.approx(float(exact.scores[0]), abs=0.05)
    assert found.scores.tolist() != exact.scores.tolist()
