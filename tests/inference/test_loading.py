"""Loading a model from a run or a config: weights, class names, and errors that name the fault."""

import json
import logging

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from PIL import Image

from maskrcnn_ext import InputError, Predictor, SafeMapper
from maskrcnn_ext.config.yaml_file import PythonTag
from maskrcnn_ext.data.images.memory import read_bytes
from maskrcnn_ext.inference.loading import image_reader, load_model, read_config, sample_images
from maskrcnn_ext.inference.tiling.windowed import WindowedImage
from tests.helpers.small_model import same


def test_classes_come_from_the_data_set(run, caplog):
    classes = load_model(run, device="cpu").classes
    assert classes.names == ("disc", "rectangle", "triangle", "star", "ring")
    assert classes.category_ids == (1, 2, 3, 4, 5)
    with caplog.at_level(logging.WARNING):
        unknown = load_model(run, device="cpu", overrides=["dataloader.test.dataset.names=coco:/gone.json@/gone"])
    assert unknown.classes.names[0] == "class 0"
    assert unknown.classes.category_ids == (0, 1, 2, 3, 4)
    assert "The class names are unknown, so the classes are numbered (" in caplog.text
    assert "no such file or folder: /gone.json" in caplog.text


def test_category_ids_are_the_data_sets_own(run, tmp_path, shapes):
    content = json.loads(shapes.read_text())
    new = {category["id"]: 90 - 7 * category["id"] for category in content["categories"]}
    for entry in content["categories"]:
        entry["id"] = new[entry["id"]]
    for entry in content["annotations"]:
        entry["category_id"] = new[entry["category_id"]]
    (tmp_path / "own.json").write_text(json.dumps(content))
    data = f"coco:{tmp_path / 'own.json'}@{shapes.parent / 'images'}"
    classes = load_model(run, device="cpu", overrides=[f"dataloader.test.dataset.names={data}"]).classes
    by_name = {category["name"]: category["id"] for category in content["categories"]}
    assert [by_name[name] for name in classes.names] == list(classes.category_ids)
    assert set(classes.category_ids) == {83, 76, 69, 62, 55}


def test_a_run_loads_its_best_checkpoint_else_its_last(run, tmp_path, photo):
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert load_model(tmp_path, device="cpu").weights == str(tmp_path / "model_final.pth")
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
        ("run", {"dtype": "int8"}, "expected fp32, bf16 or fp16"),
        ("run", {"overrides": ["model.roi_heads.num_clases=3"]}, "num_clases"),
        ("run", {"overrides": ["model.backbone.out_channels=64"]}, "out_channels|shape|random"),
        ("no_such_config.py", {}, "no_such_config"),
    ],
    ids=str,
)
def test_errors_are_one_line(run, tmp_path, config, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_weights").mkdir()
    (tmp_path / "no_weights/config.yaml").write_bytes((run / "config.yaml").read_bytes())
    config = {"run": run}.get(config, tmp_path / config if (tmp_path / config).is_dir() else config)
    with pytest.raises(InputError, match=message) as caught:
        Predictor(config, device="cpu", **arguments)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(run, tmp_path):
    state = torch.load(run / "model_final.pth", weights_only=False)
    state["model"]["roi_heads.box_head.fc1.weight"][3, 4] = torch.nan
    torch.save(state, tmp_path / "diverged.pth")
    with pytest.raises(
        InputError, match=r"diverged.pth: roi_heads.box_head.fc1.weight is not finite, .* earlier checkpoint"
    ):
        load_model(run, str(tmp_path / "diverged.pth"), device="cpu")


def test_weights_that_leave_a_head_random_are_refused(run, tmp_path):
    content = torch.load(run / "model_final.pth")
    content["model"] = {key: value for key, value in content["model"].items() if "mask_head" not in key}
    torch.save(content, tmp_path / "backbone.pth")
    with pytest.raises(
        InputError, match=r"leaves \d+ tensors of the model random \(roi_heads\.mask_head.*\): use the config"
    ):
        load_model(run, str(tmp_path / "backbone.pth"), device="cpu")
    load_model(run, "", device="cpu")  # explicitly random


HOSTILE = {
    "tag": "model: !!python/object/apply:os.mkdir [PWNED]",
    "target": "model: {_target_: os.mkdir, path: PWNED}",
    "mapper": "model: {_target_: torch.nn.Identity}\ndataloader: {test: {mapper: {_target_: os.mkdir, path: PWNED}}}",
    "allows itself": "model: {_target_: os.mkdir, path: PWNED}\ntrain: {loading: {allow_pickle: true}}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_config_runs_nothing(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rest = "" if "dataloader" in text else "dataloader: {test: {mapper: {_target_: torch.nn.Identity}}}\n"
    rest += "" if "train" in text else "train: {}\n"
    (tmp_path / "config.yaml").write_text(f"{text}\n{rest}")
    with pytest.raises(InputError, match=r"config\.yaml: .* any program: .*train\.loading\.allow_pickle=true"):
        load_model(tmp_path, "", device="cpu")
    assert not (tmp_path / "PWNED").exists()


def test_code_that_prediction_does_not_need_does_not_run(run, tmp_path):
    text = (run / "config.yaml").read_text()
    source = "!!python/object/apply:maskrcnn_ext.config.config_yaml.from_source ['def f(c): return c', {}]"
    (tmp_path / "config.yaml").write_text(f"{text}\nextra: {source}\n")
    load_model(tmp_path, "", device="cpu")
    assert isinstance(read_config(tmp_path).extra, PythonTag)
    assert read_config(tmp_path, run_code=True).extra(3) == 3
    (tmp_path / "config.yaml").write_text(text.replace("model:\n", f"model:\n  extra_part: {source}\n"))
    with pytest.raises(InputError, match=r"model\.extra_part is !!python/.* add the override"):
        load_model(tmp_path, "", device="cpu")
    with pytest.raises(TypeError, match="extra_part"):  # the model takes no such argument, but the config is read
        load_model(tmp_path, "", device="cpu", overrides=["train.loading.allow_pickle=true"])


def test_a_yacs_config_of_detectron2_loads(tmp_path, photo, spec):
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


def test_read_config_finds_runs_files_and_shipped_configs(run):
    assert read_config(run) == read_config(run / "config.yaml")
    assert read_config("mask_rcnn_r50_fpn_1x.py").model.roi_heads.num_classes == 80
    with pytest.raises(InputError, match="no_such_config"):
        read_config("no_such_config.py")


def test_sample_images_are_evenly_spaced(run, shapes):
    mapper = load_model(run, device="cpu").mapper
    folder = shapes.parent / "images"
    first, last = sample_images(str(folder), 2, mapper)
    read = image_reader(mapper)
    np.testing.assert_array_equal(first, read({"file_name": str(folder / "000001.jpg")}))
    np.testing.assert_array_equal(last, read({"file_name": str(folder / "000008.jpg")}))
    assert len(sample_images(str(folder), 100, mapper)) == 8


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)], ids=["grey", "colour"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mapper", ["DatasetMapper", "SafeMapper"])
def test_one_file_has_one_scale_whole_in_windows_and_as_bytes(tmp_path, mapper, suffix, dtype, shape):
    if (mapper, suffix, dtype, len(shape)) == ("DatasetMapper", "tif", "uint16", 3):
        pytest.skip("Pillow does not open these, and neither does Detectron2's mapper")
    cls = {"DatasetMapper": DatasetMapper, "SafeMapper": SafeMapper}[mapper]
    read = image_reader(cls(is_train=False, augmentations=[], image_format="BGR"))
    file = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype))
    whole = read({"file_name": str(file)})
    image = WindowedImage(file, read=read)
    parts = np.concatenate([image.read((0, 0, 17, 30)), image.read((17, 0, 23, 30))], axis=1)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_array_equal(read_bytes(file.read_bytes(), read), whole)


def test_an_image_that_is_too_large_to_read_at_once_is_one_line(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    mapper = DatasetMapper(is_train=False, augmentations=[], image_format="BGR")
    with pytest.raises(InputError, match=r"a\.png: 40 x 30 pixels are too many to read at once: predict it in tiles"):
        image_reader(mapper)({"file_name": str(tmp_path / "a.png")})


@pytest.mark.parametrize(("dtype", "is_cut"), [("uint8", False), ("uint16", True)])
def test_grey_values_that_detectron2s_mapper_cuts_are_reported(tmp_path, caplog, dtype, is_cut):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((6, 9), np.iinfo(dtype).max, dtype))
    read = image_reader(DatasetMapper(is_train=False, augmentations=[], image_format="BGR"))
    with caplog.at_level(logging.WARNING, "maskrcnn_ext"):
        read({"file_name": str(tmp_path / "a.png")})
    assert ("cuts the grey values of" in caplog.text) == is_cut
