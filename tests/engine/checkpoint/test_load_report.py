"""The report of loaded weights names missing weights, and does not warn of expected ones."""

import logging
import pickle

import numpy as np
import pytest
import timm
import torch
from torch import nn

from maskrcnn_ext import TimmBackbone
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.errors import InputError
from tests.helpers.detectors import detector


@pytest.fixture(scope="module")
def state():
    """Weights of a detector with five classes."""
    return detector().state_dict()


@pytest.fixture
def load(tmp_path):
    """Loads weights into a model and returns the report."""

    def load(model, state, strict="none", query="", **more):
        torch.save({"model": state, **more}, tmp_path / "a.pth")
        checkpointer = Checkpointer(model)
        checkpointer.load(f"{tmp_path}/a.pth{query}", strict=strict)
        return checkpointer.report

    return load


def imagenet(state, trunk="backbone.bottom_up."):
    """Returns the trunk of a detector as weights of an image classifier."""
    weights = {key.removeprefix(trunk): value for key, value in state.items() if key.startswith(trunk)}
    return {**weights, "stem.fc.weight": torch.zeros(10, 512), "stem.fc.bias": torch.zeros(10)}


def renamed(state, *keys):
    return {f"{key}_renamed" if key in keys else key: value for key, value in state.items()}


def without(state, prefix):
    return {key: value for key, value in state.items() if not key.startswith(prefix)}


def test_equal_weights_are_loaded_without_a_warning(state, load, caplog):
    caplog.set_level(logging.INFO)
    report = load(detector(seed=1), state, "all")
    assert sorted(report.loaded) == sorted(state)
    assert report.lines() == [f"Weights of {report.source}: {len(state)} tensors loaded"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


PLANTED = (
    "backbone.bottom_up.res3.0.conv1.weight",
    "proposal_generator.rpn_head.objectness_logits.bias",
    "roi_heads.mask_head.deconv.weight",
)


def test_renamed_keys_are_all_named(state, load, caplog):
    report = load(detector(), renamed(state, *PLANTED))
    assert sorted(report.missing) == sorted(PLANTED)
    assert sorted(report.unexpected) == sorted(f"{key}_renamed" for key in PLANTED)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    for key in PLANTED:
        assert record.getMessage().count(key) == 2
    for strict in ("body", "all"):
        with pytest.raises(
            InputError, match=rf"^train\.loading\.strict={strict}: .*a\.pth does not fit the model"
        ) as error:
            load(detector(), renamed(state, *PLANTED), strict)
        assert "\n" not in str(error.value)
        for key in PLANTED:
            assert f"{key}_renamed" in str(error.value)
            assert str(error.value).count(key) == 2


@pytest.mark.parametrize("key", [*PLANTED, "backbone.fpn_output3.weight", "roi_heads.box_head.fc1.weight"])
@pytest.mark.parametrize("fault", ["missing", "added", "shape"])
def test_each_fault_of_a_body_is_an_error(state, load, key, fault):
    weights = dict(state)
    if fault == "missing":
        del weights[key]
    elif fault == "added":
        key = key.replace("weight", "weight_of_another").replace("bias", "bias_of_another")
        weights[key] = torch.zeros(3)
    else:
        weights[key] = torch.zeros(3, 1)
    report = load(detector(), weights)
    assert {"missing": report.missing, "added": report.unexpected, "shape": list(report.changed)}[fault] == [key]
    with pytest.raises(InputError, match=key.replace(".", r"\.")):
        load(detector(), weights, "body")


@pytest.mark.parametrize("part", ["backbone.fpn", "proposal_generator", "roi_heads.box_head", "roi_heads.mask_head"])
def test_a_whole_part_under_another_name(state, load, part):
    weights = {key.replace(part, f"{part}_x"): value for key, value in state.items()}
    report = load(detector(), weights)
    assert sorted(report.unexpected) == sorted(
        key for key in weights if f"{part}_x" in key and "num_batches" not in key
    )
    with pytest.raises(InputError, match="strict=body"):
        load(detector(), weights, "body")


def test_all_layers_of_a_head_under_other_names(state, load):
    weights = {key.replace("box_head.", "box_head.x_"): value for key, value in state.items()}
    report = load(detector(), weights)
    assert report.missing == [key for key in state if "box_head" in key]
    assert report.unexpected == [key for key in weights if "box_head" in key]


def test_weights_of_a_classifier_of_images(state, load, caplog):
    caplog.set_level(logging.INFO)
    report = load(detector(), imagenet(state), "body", matching_heuristics=True, __author__="torchvision")
    assert sorted(report.loaded) == sorted(key for key in state if key.startswith("backbone.bottom_up."))
    fresh = report.expected["newly initialised, no such part in the file"]
    assert {key.split(".")[0] for key in fresh} == {"backbone", "proposal_generator", "roi_heads"}
    assert report.expected["not used, the file's image classifier"] == ["stem.fc.bias", "stem.fc.weight"]
    assert (
        "proposal_generator (6), roi_heads.box_head (2), roi_heads.box_predictor (4), roi_heads.mask_head (9)"
        in caplog.text
    )
    assert "not used, the file's image classifier: stem.fc.{bias, weight}" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(InputError, match="strict=all"):
        load(detector(), imagenet(state), "all", matching_heuristics=True)


def test_a_classifier_that_lacks_a_layer(state, load):
    weights = renamed(imagenet(state), "res4.1.conv2.weight")
    report = load(detector(), weights, matching_heuristics=True)
    assert report.missing == ["backbone.bottom_up.res4.1.conv2.weight"]
    assert report.unexpected == ["res4.1.conv2.weight_renamed"]
    weights["res4.1.conv2.weight"] = torch.zeros(2, 2)
    report = load(detector(), weights, matching_heuristics=True)
    assert report.changed == {"backbone.bottom_up.res4.1.conv2.weight": ((2, 2), (32, 32, 3, 3))}
    with pytest.raises(InputError, match=r"res4\.1\.conv2\.weight \(2, 2\) -> \(32, 32, 3, 3\)"):
        load(detector(), weights, "body", matching_heuristics=True)


def test_weights_of_caffe2(state, tmp_path):
    """Names of the zoo's ImageNet files, renamed by Detectron2."""
    names = {}
    for key in imagenet(state):
        if "num_batches" in key or "running" in key:
            continue
        name = (
            key.replace("stem.fc.", "fc1000.")
            .replace("stem.", "")
            .replace(".norm.weight", "_bn_s")
            .replace(".norm.bias", "_bn_b")
        )
        name = name.replace("shortcut", "branch1").replace(".conv1", ".branch2a").replace(".conv2", ".branch2b")
        name = name.replace(".weight", "_w").replace(".bias", "_b").replace(".", "_")
        names["res_conv1_bn" + name[8:] if name.startswith("conv1_bn") else name] = imagenet(state)[key].numpy()
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps(names))
    frozen = ["model.backbone.bottom_up.stages.norm=FrozenBN", "model.backbone.bottom_up.stem.norm=FrozenBN"]
    checkpointer = Checkpointer(detector(*frozen))
    checkpointer.load(str(tmp_path / "R-18.pkl"), strict="body")
    assert len(checkpointer.report.loaded) == len(names) - 2
    assert len(checkpointer.report.expected["not used, the file's image classifier"]) == 2


def test_another_number_of_classes_is_expected(state, load, caplog):
    caplog.set_level(logging.INFO)
    report = load(detector(classes=3), state, "body")
    assert sorted(report.resized) == sorted(
        f"roi_heads.{layer}.{kind}"
        for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")
        for kind in ("weight", "bias")
    )
    assert report.resized["roi_heads.box_predictor.cls_score.bias"] == ((6,), (4,))
    assert "cls_score.bias (6,) -> (4,)" in caplog.text
    assert "train.loading.class_names" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(InputError, match=r"strict=all: .*cls_score\.bias \(6,\) -> \(4,\)"):
        load(detector(classes=3), state, "all")


@pytest.mark.parametrize(
    "head", ["BoundaryMaskHead", "PointRendMaskHead", "MLPMaskHead", "MaskScoringHead", "SoftmaxMaskHead"]
)
def test_another_mask_head_is_expected(state, load, head):
    options = [f"model.roi_heads.mask_head._target_=maskrcnn_ext.{head}"]
    if head == "PointRendMaskHead":
        options.append("model.roi_heads.mask_pooler=null")
    model = detector(*options)
    report = load(model, state, "body")
    ours = {key for key in model.state_dict() if ".mask_head." in key and "num_batches" not in key}
    theirs = {key for key in state if ".mask_head." in key and "num_batches" not in key}
    assert set(report.expected["newly initialised, another roi_heads.mask_head than in the file"]) == ours
    assert set(report.expected["not used, the file's roi_heads.mask_head"]) >= theirs - ours
    assert len(report.loaded) == len([key for key in state if ".mask_head." not in key])
    with pytest.raises(InputError, match="strict=all"):
        load(detector(*options), state, "all")


def test_a_detector_without_masks_and_back(state, load):
    report = load(detector(), without(state, "roi_heads.mask_head"), "body")
    assert set(report.expected["newly initialised, no such part in the file"]) == {
        key for key in state if ".mask_head." in key and "num_batches" not in key
    }
    report = load(detector("model.roi_heads.mask_head=null", "model.roi_heads.mask_in_features=null"), state, "body")
    assert "roi_heads.mask_head.deconv.weight" in report.expected["not used, no such part in the model"]


def test_a_missing_pyramid_is_unexpected(state, load):
    report = load(detector(), without(state, "backbone.fpn"))
    assert {key.split(".")[1][:4] for key in report.missing} == {"fpn_"}
    with pytest.raises(InputError, match=r"fpn_lateral2.* and \d+ more \(the log has all\)"):
        load(detector(), without(state, "backbone.fpn"), "body")


def test_unrelated_weights(load, caplog):
    with pytest.raises(InputError, match=r"not in the model: a|none of its tensors"):
        load(detector(), {"a": torch.zeros(1)}, "body")
    assert "0 tensors loaded" in caplog.text


def test_a_tensor_under_two_names_is_not_missing(load):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)
            self.b = self.a

    report = load(Shared(), {"a.weight": torch.zeros(2, 2), "a.bias": torch.zeros(2)}, "all")
    assert report.missing == []
    report = load(Shared(), {"a.weight": torch.zeros(2, 2)})
    assert report.missing == ["a.bias"]
    assert report.expected == {"newly initialised, no such part in the file": ["b.bias"]}


def test_channels_added_to_a_stem_are_expected(state, load):
    options = [
        "model.backbone.bottom_up.stem._target_=maskrcnn_ext.InflatedStem",
        "model.backbone.bottom_up.stem.in_channels=5",
    ]
    report = load(detector(*options), state, "body")
    assert report.expected == {"newly initialised, added by this package": ["backbone.bottom_up.stem.extra_weight"]}


def test_a_backbone_with_its_own_weights_keeps_them(tmp_path, caplog):
    name = "mobilenetv4_conv_small_035"
    torch.save(timm.create_model(name).state_dict(), tmp_path / "own.pth")
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.bottom_up = TimmBackbone(name, pretrained=str(tmp_path / "own.pth"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    # Names of Caffe2's ResNet, and one that ends like the network's.
    weight = np.ones((16, 3, 3, 3), np.float32)
    file = tmp_path / "R-50.pkl"
    file.write_bytes(pickle.dumps({"res2_0_branch2a_w": weight, "conv1_w": weight, "conv_stem.weight": weight}))
    checkpointer = Checkpointer(model)
    with caplog.at_level("INFO"):
        checkpointer.load(str(file), strict="body")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    (line,) = [record for record in caplog.records if "not used, the backbone has its own" in record.getMessage()]
    assert line.levelname == "INFO"
    assert "set train.init_checkpoint=''" in line.getMessage()
    # A checkpoint of the model itself is loaded whole.
    torch.save({"model": {key: value + 1 for key, value in before.items()}}, tmp_path / "model.pth")
    checkpointer.load(str(tmp_path / "model.pth"), strict="all")
    assert all(torch.equal(value, before[key] + 1) for key, value in model.state_dict().items())
