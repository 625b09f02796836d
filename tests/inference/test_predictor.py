"""Prediction in Python: whatever an image comes as, and in whatever batch, the result is that of the image alone."""

import io
import json
import logging

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetMapper
from detectron2.modeling import GeneralizedRCNN
from PIL import Image
from pycocotools import mask as mask_util

from maskrcnn_ext import InputError, Predictor
from tests.helpers.small_model import make_run, same

SIZES = ((96, 96), (60, 100), (100, 60), (60, 100), (96, 96), (60, 101), (96, 96))


@pytest.fixture(scope="module")
def spec(shapes):
    return f"coco:{shapes}@{shapes.parent / 'images'}"


@pytest.fixture(scope="module")
def run(tmp_path_factory, spec):
    return make_run(tmp_path_factory.mktemp("run"), spec)


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor(run, device="cpu")


@pytest.fixture(scope="module")
def photo(shapes):
    return shapes.parent / "images" / "000002.jpg"


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


def test_batches_are_true_batches_and_few_images_wait(predictor, images):
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


def test_the_result_is_that_of_detectron2s_own_way(run, predictor, photo):
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


def test_no_objects_is_a_result(run, photo):
    none = Predictor(run, device="cpu", overrides=["model.roi_heads.box_predictor.test_score_thresh=1.5"])(photo)
    assert len(none) == len(none.pred_masks) == 0
    assert none.image_size == (96, 96)
    assert none.pred_boxes.tensor.shape == (0, 4)


def test_no_images_are_no_results(predictor):
    assert list(predictor.predict([])) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("gone.jpg", "gone.jpg"),
        (b"no image", "8 bytes are no image"),
        (b"", "0 bytes are no image"),
        (np.zeros((4, 4, 2), np.uint8), "2 channels"),
        (np.zeros((0, 4, 3), np.uint8), "no image"),
        (np.zeros(4), "no image"),
        (7, "one int is no image"),
    ],
    ids=str,
)
def test_what_is_no_image_is_said(predictor, image, message):
    with pytest.raises(InputError, match=message) as caught:
        predictor(image)
    assert "\n" not in str(caught.value)


def test_classes_are_told_by_the_data_set(predictor, run, caplog):
    assert predictor.classes.names == ("disc", "rectangle", "triangle", "star", "ring")
    assert predictor.classes.category_ids == (1, 2, 3, 4, 5)
    with caplog.at_level(logging.WARNING):
        unknown = Predictor(run, device="cpu", overrides=["dataloader.test.dataset.names=coco:/gone.json@/gone"])
    assert unknown.classes.names[0] == "class 0"
    assert unknown.classes.category_ids == (0, 1, 2, 3, 4)
    assert "Class names and ids may not be known (data set coco:/gone.json" in caplog.text


def test_category_ids_are_the_data_sets_own(run, tmp_path, shapes):
    content = json.loads(shapes.read_text())
    new = {category["id"]: 90 - 7 * category["id"] for category in content["categories"]}
    for entry in content["categories"]:
        entry["id"] = new[entry["id"]]
    for entry in content["annotations"]:
        entry["category_id"] = new[entry["category_id"]]
    (tmp_path / "own.json").write_text(json.dumps(content))
    data = f"coco:{tmp_path / 'own.json'}@{shapes.parent / 'images'}"
    classes = Predictor(run, device="cpu", overrides=[f"dataloader.test.dataset.names={data}"]).classes
    by_name = {category["name"]: category["id"] for category in content["categories"]}
    assert [by_name[name] for name in classes.names] == list(classes.category_ids)
    assert set(classes.category_ids) == {83, 76, 69, 62, 55}


def test_of_a_run_the_best_checkpoint_counts_then_the_last(run, tmp_path, photo):
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert Predictor(tmp_path, device="cpu").weights == str(tmp_path / "model_final.pth")
    content = torch.load(run / "model_final.pth")
    content["model"]["roi_heads.box_predictor.cls_score.bias"] += 1.0
    torch.save(content, tmp_path / "model_best.pth")
    best = Predictor(tmp_path, device="cpu")
    assert best.weights == str(tmp_path / "model_best.pth")
    assert torch.equal(
        best.model.roi_heads.box_predictor.cls_score.bias, content["model"]["roi_heads.box_predictor.cls_score.bias"]
    )
    same(
        Predictor(tmp_path, str(tmp_path / "model_final.pth"), device="cpu")(photo), Predictor(run, device="cpu")(photo)
    )


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        ("empty", {}, "has no config.yaml"),
        ("no_weights", {}, "has no checkpoint"),
        ("run", {"weights": "gone.pth"}, "gone.pth"),
        ("run", {"dtype": "int8"}, "expected fp32, bf16, fp16"),
        ("run", {"overrides": ["model.roi_heads.num_clases=3"]}, "num_clases"),
        ("run", {"overrides": ["model.backbone.out_channels=64"]}, "out_channels|shape|random"),
        ("no_such_config.py", {}, "no_such_config"),
    ],
    ids=str,
)
def test_what_cannot_be_loaded_is_said_in_one_line(run, tmp_path, config, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_weights").mkdir()
    (tmp_path / "no_weights/config.yaml").write_bytes((run / "config.yaml").read_bytes())
    config = {"run": run}.get(config, tmp_path / config if (tmp_path / config).is_dir() else config)
    with pytest.raises(InputError, match=message) as caught:
        Predictor(config, device="cpu", **arguments)
    assert "\n" not in str(caught.value)


def test_weights_that_leave_a_head_random_are_refused(run, tmp_path):
    content = torch.load(run / "model_final.pth")
    content["model"] = {key: value for key, value in content["model"].items() if "mask_head" not in key}
    torch.save(content, tmp_path / "backbone.pth")
    with pytest.raises(
        InputError, match=r"leaves \d+ tensors of the model random \(roi_heads\.mask_head.*\): give the config"
    ):
        Predictor(run, str(tmp_path / "backbone.pth"), device="cpu")
    Predictor(run, "", device="cpu")  # asked for


def test_a_yacs_config_of_detectron2_predicts(tmp_path, photo, spec):
    from detectron2.config import get_cfg
    from detectron2.model_zoo import get_config_file
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64])
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_HEADS.NUM_CLASSES", 5, "INPUT.MIN_SIZE_TEST", 64])
    cfg.merge_from_list(["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.1, "MODEL.ROI_BOX_HEAD.FC_DIM", 64])
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "weights.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    cfg.DATASETS.TEST = (spec,)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    predictor = Predictor(tmp_path / "config.yaml", device="cpu", overrides=["TEST.DETECTIONS_PER_IMAGE=3"])
    assert predictor.classes.names[0] == "disc"
    assert isinstance(DatasetMapper(cfg, is_train=False), DatasetMapper)
    found = predictor(photo)
    assert len(found) == len(found.pred_masks) == 3
    with pytest.raises(InputError, match="DETECTIONS_PER_IMG"):
        Predictor(tmp_path / "config.yaml", device="cpu", overrides=["TEST.DETECTIONS_PER_IMG=3"])


def test_keypoints_are_predicted_and_named(tmp_path, people):
    run = make_run(tmp_path, people, "model.roi_heads.num_classes=1", config="keypoint_rcnn_r18_fpn_scratch.py")
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


def test_autocast_computes_in_less_precision_and_gives_results_in_single(run, photo, predictor):
    coarse = Predictor(run, device="cpu", dtype="bf16")
    seen = []
    coarse.model.roi_heads.mask_head.register_forward_hook(lambda *passed: seen.append(passed[2][0].pred_masks))
    found, exact = coarse(photo), predictor(photo)
    assert seen[0].dtype == torch.bfloat16
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32
    assert found.scores[0] == pytest.approx(float(exact.scores[0]), abs=0.05)
    assert found.scores.tolist() != exact.scores.tolist()
