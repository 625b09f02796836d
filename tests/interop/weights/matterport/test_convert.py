"""A Mask R-CNN that Keras has saved gives the same results in Detectron2."""

import copy
import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from scipy import ndimage

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import write_model
from maskrcnn_ext.interop.weights.matterport.convert import convert
from tests.helpers.keras_maskrcnn import SETTINGS, KerasMaskRCNN, Weights, mold, normalised, write_h5


def blobs(height, width, seed=1):
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 10, width // 10, 3))
    return ndimage.zoom(coarse.astype(float), (10, 10, 1), order=1).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def image():
    return blobs(90, 120)


@pytest.fixture(scope="module")
def layers(image):
    return Weights(SETTINGS).calibrate(SETTINGS, image)


@pytest.fixture(scope="module")
def folder(layers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    write_h5(folder / "weights.h5", layers)
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    return folder


@pytest.fixture(scope="module")
def converted(folder):
    return convert(folder / "weights.h5", config=folder / "settings.json")


@pytest.fixture(scope="module")
def model(converted):
    model = instantiate(converted.config.model).eval()
    model.load_state_dict(converted.state)
    return model


@pytest.fixture(scope="module")
def keras(layers):
    return KerasMaskRCNN(layers, SETTINGS)


def prepared(config, image):
    resized = T.AugInput(image)
    T.AugmentationList(instantiate(config.dataloader.test.mapper.augmentations))(resized)
    pixels = torch.as_tensor(np.ascontiguousarray(resized.image.transpose(2, 0, 1)))
    return {"image": pixels, "height": image.shape[0], "width": image.shape[1]}


@torch.no_grad()
def detected(model, config, image):
    """Final detections with their masks of 28 x 28."""
    raw = model.inference([prepared(config, image)], do_postprocess=False)[0]
    masks = raw.pred_masks[:, 0].numpy()
    final = model([prepared(config, image)])[0]["instances"]
    assert len(final) == len(raw)
    return final.pred_boxes.tensor.numpy(), final.pred_classes.numpy(), final.scores.numpy(), masks


def assert_equal_detections(found, expected):
    boxes, classes, scores, masks = found
    assert len(boxes) == len(expected[0]) > 5
    assert np.array_equal(classes + 1, expected[1])
    assert np.abs(boxes - expected[0]).max() < 2e-3
    assert np.abs(scores - expected[2]).max() < 1e-4
    assert np.abs(masks - expected[3]).max() < 1e-3


def yx(boxes):
    return np.asarray(boxes)[:, [1, 0, 3, 2]]


@torch.no_grad()
def test_every_part_equals_keras(model, keras, converted, image):
    images = model.preprocess_image([prepared(converted.config, image)])
    molded, window = mold(image, SETTINGS)
    assert window == (16, 0, 112, 128)
    molded = torch.from_numpy(molded).permute(2, 0, 1)[None]
    assert (images.tensor - molded).abs().max() < 1e-4

    stem = keras.stem(molded)
    assert torch.allclose(model.backbone.bottom_up.stem(images.tensor).double(), stem, rtol=1e-4, atol=1e-4)
    levels, features = keras.pyramid(molded), model.backbone(images.tensor)
    for level, feature in zip(levels, features.values(), strict=True):
        assert (feature - level).abs().max() < 1e-5 * level.abs().max()

    rpn, maps = model.proposal_generator, list(features.values())
    logits, deltas = keras.rpn(levels)
    anchors = keras.anchors(128, 128)
    ours = torch.cat([level.tensor for level in rpn.anchor_generator(maps)]).numpy()
    assert np.abs(normalised(yx(ours), 128, 128) - anchors).max() < 1e-6
    scores = torch.cat([level.permute(0, 2, 3, 1).flatten() for level in rpn.rpn_head(maps)[0]])
    assert np.abs(scores.numpy() - (logits[:, 1] - logits[:, 0])).max() < 1e-4

    rois, _ = keras.proposals(logits, deltas, anchors)
    proposals = rpn(images, features)[0]
    assert len(rois) == SETTINGS["POST_NMS_ROIS_INFERENCE"]
    assert np.abs(normalised(yx(proposals[0].proposal_boxes.tensor), 128, 128) - rois).max() < 1e-5

    pooled = keras.pooled(levels, rois, 7, 128, 128)
    heads = model.roi_heads
    found = heads.box_pooler(maps[:4], [proposals[0].proposal_boxes])
    assert (found - pooled).abs().max() < 1e-3
    probabilities, _ = keras.class_head(pooled)
    predicted = heads.box_predictor(heads.box_head(found))
    assert np.abs(predicted[0].softmax(1).roll(1, 1).numpy() - probabilities).max() < 1e-4
    masks = heads.mask_head.layers(heads.mask_pooler(maps[:4], [proposals[0].proposal_boxes])).sigmoid()
    assert np.abs(masks.numpy() - keras.mask_head(keras.pooled(levels, rois, 14, 128, 128))[:, 1:]).max() < 1e-4


def test_detections_are_those_of_keras(model, keras, converted, image):
    assert_equal_detections(detected(model, converted.config, image), keras.detect(image))


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("pad64", (70, 130)), pytest.param("none", (130, 70), marks=pytest.mark.slow), ("square", (200, 150))],
)
def test_detections_are_those_of_keras_in_every_mode_of_resizing(layers, folder, tmp_path, mode, shape):
    settings = {**SETTINGS, "IMAGE_RESIZE_MODE": mode}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    converted = convert(folder / "weights.h5", config=tmp_path / "settings.json")
    model = instantiate(converted.config.model).eval()
    model.load_state_dict(converted.state)
    image = blobs(*shape)
    assert_equal_detections(detected(model, converted.config, image), KerasMaskRCNN(layers, settings).detect(image))


def test_boxes_are_rounded_where_wanted(model, keras, converted, image):
    model = copy.copy(model)
    model.round_boxes = True
    boxes, *_ = keras.detect(image)
    assert np.abs(detected(model, converted.config, image)[0] - np.rint(boxes)).max() < 1e-4


@torch.no_grad()
def test_masks_of_given_boxes_are_those_of_the_detector(model, converted, image):
    found = model.inference([prepared(converted.config, image)], do_postprocess=False)[0]
    given = Instances(found.image_size, pred_boxes=found.pred_boxes.clone(), pred_classes=found.pred_classes)
    again = model.inference([prepared(converted.config, image)], [given], do_postprocess=False)[0]
    assert again.image_size == found.image_size == (96, 128)
    assert torch.allclose(again.pred_boxes.tensor, found.pred_boxes.tensor, atol=1e-3)
    assert torch.allclose(again.pred_masks, found.pred_masks, atol=1e-3)


@torch.no_grad()
def test_a_batch_equals_its_images(model, converted, image):
    batch = [prepared(converted.config, image), prepared(converted.config, blobs(150, 80, seed=2))]
    together = model(batch)
    for alone, found in zip(batch, together, strict=True):
        expected = model([alone])[0]["instances"]
        assert torch.allclose(found["instances"].pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3)


@pytest.mark.parametrize("layout", ["standalone", "model"])
def test_every_layout_of_keras_is_read(layers, converted, tmp_path, layout):
    file = write_h5(tmp_path / "weights.h5", layers, layout)
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    state = convert(file, config=tmp_path / "settings.json").state
    assert state.keys() == converted.state.keys()
    assert all(torch.equal(state[name], converted.state[name]) for name in state)


def test_the_report_lists_every_layer_and_setting(converted, layers):
    keys = {f"{layer}/{name}" for layer, weights in layers.items() for name in weights}
    assert converted.report.used.keys() | converted.report.unused.keys() == keys | SETTINGS.keys()
    assert not keys & converted.report.unused.keys()
    assert converted.report.unexplained == []
    assert converted.classes is None
    assert converted.report.used["NUM_CLASSES"] == ["model.roi_heads.num_classes"]


def changed(folder, tmp_path, change):
    file = tmp_path / "changed.h5"
    shutil.copy(folder / "weights.h5", file)
    with h5py.File(file, "r+") as opened:
        change(opened)
    return file


def rename_last_block(file):
    file.move("res4f_branch2a", "res4x_branch2a")
    file.move("res4x_branch2a/res4f_branch2a", "res4x_branch2a/res4x_branch2a")


def replace(path, value):
    def change(file):
        del file[path]
        file[path] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.create_dataset("extra/extra/kernel:0", data=[1.0]), "extra/kernel is not used"),
        (lambda file: file.pop("res3b_branch2b"), "res3b_branch2b/kernel is missing"),
        (lambda file: file.pop("mrcnn_mask_bn3"), "mrcnn_mask_bn3/gamma is missing"),
        (lambda file: file.pop("mrcnn_class_logits"), "mrcnn_class_logits/kernel is missing"),
        (lambda file: file.copy("conv1", "conv1_1"), "contains conv1/.* twice"),
        (rename_last_block, "stage 4 ends with block 'x'"),
        (replace("fpn_p3/fpn_p3/kernel:0", np.zeros((1, 1, 32, 32))), r"fpn_output3.weight has shape"),
        (replace("rpn_model/rpn_class_raw/bias:0", np.zeros(5)), "the shape of a layer differs"),
        (replace("conv1/conv1/kernel:0", np.zeros(3)), "conv1/kernel is missing or has too few axes"),
        (replace("conv1/conv1/kernel:0", np.array("text", dtype="S4")), "cannot read it as an .h5 file of Keras"),
    ],
)
def test_layers_that_do_not_fit_are_named_in_one_line(folder, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        convert(changed(folder, tmp_path, change), config=folder / "settings.json")
    assert "\n" not in str(error.value)


def test_files_that_are_no_weights_are_named_in_one_line(folder, tmp_path):
    whole = (folder / "weights.h5").read_bytes()
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["dense/kernel:0"] = np.zeros(3)
    (tmp_path / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("no weights")
    (tmp_path / "empty.h5").write_bytes(b"")
    for name in ("foreign", "truncated", "text", "empty", "absent"):
        with pytest.raises(InputError, match=name) as error:
            convert(tmp_path / f"{name}.h5")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("external link", "conv1 is a link to / of other.h5, which is not followed"),
        ("soft link", "model_weights is a link to /elsewhere, which is not followed"),
        ("external storage", "conv1/kernel:0 is stored in other files"),
        ("virtual", "conv1/kernel:0 is stored in other files"),
        ("huge", r"conv1/kernel:0 of shape \(1099511627776,\) has 4,398 GB"),
    ],
)
def test_nothing_outside_of_the_file_is_read(tmp_path, kind, message):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones(3, np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        name = "conv1/kernel:0"
        if kind == "external link":
            file["conv1"] = h5py.ExternalLink("other.h5", "/")
        elif kind == "soft link":
            file["model_weights"] = h5py.SoftLink("/elsewhere")
        elif kind == "external storage":
            file.create_dataset(name, (3,), "f4", external=[(str(tmp_path / "other.h5"), 0, 12)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3,), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (3,))
            file.create_virtual_dataset(name, layout)
        else:
            file.create_dataset(name, (2**40,), "f4", chunks=(1024,))
    with pytest.raises(InputError, match=message) as error:
        convert(tmp_path / "a.h5")
    assert "\n" not in str(error.value)


def test_settings_of_other_weights_are_refused(folder, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({**SETTINGS, "NUM_CLASSES": 7}))
    with pytest.raises(InputError, match=r"NUM_CLASSES=7 contradicts .*weights\.h5, which has 4"):
        convert(folder / "weights.h5", config=tmp_path / "settings.json")


def test_coco_weights_of_resnet101_have_the_names_of_coco(tmp_path):
    settings = {**SETTINGS, "BACKBONE": "resnet101", "NUM_CLASSES": 81}
    converted = convert(write_h5(tmp_path / "coco.h5", Weights(settings).layers))
    assert converted.classes[0] == "person"
    assert converted.classes[-1] == "toothbrush"
    assert len(converted.classes) == 80
    config = converted.config
    assert config.model.backbone.bottom_up.stages.depth == 101
    assert config.model.backbone.out_channels == 32  # from the weights
    assert config.model.square_size == 1024  # Matterport's default
    assert "--matterport-config" in converted.report.missing


def test_the_written_model_loads_and_predicts(converted, model, image, tmp_path):
    write_model(converted, tmp_path / "out")
    config = LazyConfig.load(str(tmp_path / "out" / "config.yaml"))
    again = instantiate(config.model).eval()
    again.load_state_dict(torch.load(tmp_path / "out" / "model.pth", weights_only=True)["model"])
    for ours, theirs in zip(detected(again, config, image), detected(model, converted.config, image), strict=True):
        assert np.array_equal(ours, theirs)


def test_fine_tuning_trains(converted, people):
    config = copy.deepcopy(converted.config)
    config.dataloader.train.dataset.names = people
    config.dataloader.train.num_workers = 0
    torch.manual_seed(0)
    model = instantiate(config.model)
    model.load_state_dict(converted.state)
    config.optimizer.params.model = model
    optimizer, loader = instantiate(config.optimizer), iter(instantiate(config.dataloader.train))
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    with EventStorage():
        for _ in range(2):
            batch = next(loader)
            assert {tuple(image["image"].shape) for image in batch} == {(3, 128, 128)}
            losses = model(batch)
            assert losses.keys() == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
            assert all(loss.isfinite() for loss in losses.values())
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_grad)
            optimizer.step()
    after = dict(model.named_parameters())
    assert all(after[name].isfinite().all() for name in before)
    unchanged = [name for name in before if torch.equal(before[name], after[name])]
    assert unchanged == []


def test_training_takes_images_without_objects_and_objects_of_a_pixel(converted):
    torch.manual_seed(0)
    model = instantiate(converted.config.model)
    model.load_state_dict(converted.state)
    dot = Instances((70, 100), gt_boxes=Boxes(torch.tensor([[10.0, 10, 11, 11]])), gt_classes=torch.tensor([1]))
    none = Instances((70, 100), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.long))
    dot.gt_masks = PolygonMasks([[np.array([10.0, 10, 11, 10, 11, 11])]])
    none.gt_masks = PolygonMasks([])
    pixels = torch.zeros(3, 70, 100, dtype=torch.uint8)
    with EventStorage():
        losses = model([{"image": pixels, "instances": dot}, {"image": pixels, "instances": none}])
    assert all(loss.isfinite() for loss in losses.values())
