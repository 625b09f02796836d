"""The weights of a class are copied to its rows by name, in every head, and nothing else changes."""

import copy
import logging

import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.data.registry.catalog import read_class_names
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.checkpoint.class_rows import Axis, ClassRows, class_axes, differ_by_classes
from maskrcnn_ext.errors import InputError
from tests.helpers.detectors import detector

COCO = ["box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor"]
OLD, NEW = ["cat", "dog", "cow", "hen"], ["hen", "fox", "cat"]
HEADS = {
    "FCNMaskHead": [],
    "MLPMaskHead": [],
    "BoundaryMaskHead": [],
    "SoftmaxMaskHead": [],
    "MaskScoringHead": [],
    "RefineMaskHead": ["model.roi_heads.mask_pooler=null"],
    "FullRefineMaskHead": ["model.roi_heads.mask_pooler=null"],
    "SimpleRefineMaskHead": ["model.roi_heads.mask_pooler=null"],
    "PointRendMaskHead": ["model.roi_heads.mask_pooler=null"],
    "ImplicitPointRendMaskHead": [
        "model.roi_heads.mask_pooler=null",
        "+model.roi_heads.mask_head.point_fc_dim=4",
        "+model.roi_heads.mask_head.num_point_fc=2",
    ],
    "DCTMaskHead": [],
    "PatchDCTMaskHead": ["+model.roi_heads.mask_head.patch_dim=8"],
}


def with_head(head, classes, **options):
    return detector(f"model.roi_heads.mask_head._target_=maskrcnn_ext.{head}", *HEADS[head], classes=classes, **options)


def moved(state, model, old=OLD, new=NEW):
    result = copy.copy(state)  # with its version numbers
    ClassRows(old, new).apply(result, model)
    return result


def test_rows_of_the_stock_heads():
    theirs, ours = detector(classes=4, seed=1).state_dict(), detector(classes=3)
    fresh = {key: value.clone() for key, value in ours.state_dict().items()}
    state = moved(theirs, ours)
    for kind in ("weight", "bias"):
        score, box, mask = (f"roi_heads.{layer}.{kind}" for layer in COCO)
        # hen, fox, cat, background
        assert torch.equal(state[score][[0, 2, 3]], theirs[score][[3, 0, 4]])
        assert torch.equal(state[score][1], fresh[score][1])
        boxes = state[box].unflatten(0, (3, 4))
        assert torch.equal(boxes[[0, 2]], theirs[box].unflatten(0, (4, 4))[[3, 0]])
        assert torch.equal(boxes[1], fresh[box].unflatten(0, (3, 4))[1])
        assert torch.equal(state[mask][[0, 2]], theirs[mask][[3, 0]])
        assert torch.equal(state[mask][1], fresh[mask][1])
    rest = [key for key in theirs if not any(layer in key for layer in COCO)]
    assert len(rest) == len(theirs) - 6
    assert all(state[key] is theirs[key] for key in rest)
    assert all(torch.equal(fresh[key], value) for key, value in ours.state_dict().items()), "the model is not touched"


@pytest.mark.parametrize("head", HEADS)
def test_every_tensor_that_depends_on_the_classes_is_found(head):
    model = with_head(head, 4)
    theirs, ours = model.state_dict(), with_head(head, 3).state_dict()
    for key in theirs:
        assert bool(class_axes(key, model)) == (theirs[key].shape != ours[key].shape), key
        assert differ_by_classes(key, model, theirs[key].shape, ours[key].shape), key


@pytest.mark.parametrize("head", HEADS)
def test_a_permutation_and_its_inverse_restore_the_rows(head):
    """Permuting the classes and back restores the weights; permuting them once does not."""
    theirs, ours = (with_head(head, 4, seed=seed) for seed in (1, 2))
    order = ["hen", "cat", "cow", "dog"]
    there = moved(theirs.state_dict(), ours, OLD, order)
    back = moved(there, theirs, order, OLD)
    assert all(torch.equal(back[key], value) for key, value in theirs.state_dict().items())
    same = {key for key, value in theirs.state_dict().items() if torch.equal(there[key], value)}
    # Most biases are all zero before training.
    assert {key for key, value in there.items() if class_axes(key, ours) and value.any()} == set(there) - same


@pytest.mark.parametrize("head", HEADS)
def test_a_head_keeps_its_predictions_for_a_class(head):
    theirs = with_head(head, 4, seed=1).eval()
    for key, value in theirs.state_dict().items():
        if class_axes(key, theirs):
            torch.nn.init.normal_(value, std=0.1)
    order = ["hen", "cat", "cow", "dog"]
    ours = copy.deepcopy(theirs)
    ours.load_state_dict(moved(theirs.state_dict(), with_head(head, 4, seed=2), OLD, order))
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    found = []
    for model, names in ((theirs, OLD), (ours, order)):
        # Every class in the same box.
        instances = Instances((64, 64), pred_boxes=Boxes(torch.tensor([[8.0, 8, 56, 48]] * 4)), scores=torch.ones(4))
        instances.pred_classes = torch.tensor([names.index(name) for name in OLD])
        with torch.no_grad():
            (result,) = model.inference([{"image": image}], [instances], do_postprocess=False)
            scores, deltas = model.roi_heads.box_predictor(torch.linspace(-1, 1, 16)[None])
        place = [names.index(name) for name in OLD]
        found.append((result, scores[:, [*place, 4]], deltas.unflatten(1, (4, 4))[:, place]))
    (one, *boxes), (other, *other_boxes) = found
    assert all(torch.equal(a, b) for a, b in zip(boxes, other_boxes, strict=True))
    assert torch.allclose(one.pred_masks, other.pred_masks, atol=1e-5)
    assert head == "DCTMaskHead" or not torch.allclose(one.pred_masks[0], one.pred_masks[1], atol=1e-3)
    if one.has("pred_mask_scores"):
        assert torch.allclose(one.pred_mask_scores, other.pred_mask_scores)
        assert len(one.pred_mask_scores.unique()) > 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True), st.data())
def test_labels_cover_an_axis(classes, data):
    axis = Axis(
        per_class=data.draw(st.sampled_from([1, 4, None])),
        background=data.draw(st.booleans()),
        after_shared=data.draw(st.booleans()),
    )
    size = data.draw(st.integers(0, 40))
    labels = axis.labels(size, classes)
    if labels is not None:
        assert len(labels) == len(set(labels)) == size
        assert {name for name, _ in labels} >= set(classes)


def test_class_agnostic_layers_are_kept():
    options = ["model.roi_heads.box_predictor.cls_agnostic_bbox_reg=True", "model.roi_heads.mask_head.num_classes=1"]
    for classes, names in ((2, ["hen", "cat"]), (3, NEW)):
        theirs, ours = detector(*options, classes=4, seed=1).state_dict(), detector(*options, classes=classes)
        state = moved(theirs, ours, new=names)
        assert [key for key in theirs if state[key] is not theirs[key]] == [
            "roi_heads.box_predictor.cls_score.weight",
            "roi_heads.box_predictor.cls_score.bias",
        ]


@pytest.mark.parametrize("head", ["MLPMaskHead", "PointRendMaskHead"])
def test_class_agnostic_masks_of_this_packages_heads_are_kept(head):
    options = [
        f"model.roi_heads.mask_head._target_=maskrcnn_ext.{head}",
        "model.roi_heads.mask_head.num_classes=1",
        *HEADS[head],
    ]
    theirs, ours = detector(*options, classes=2, seed=1).state_dict(), detector(*options, classes=2)
    state = moved(theirs, ours, ["cat", "hen"], ["hen", "cat"])
    assert all(state[key] is theirs[key] for key in theirs if ".mask_head." in key)
    score = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(state[score], theirs[score][[1, 0, 2]])


def test_cascades_have_a_row_of_predictors():
    config = "cascade_mask_rcnn_r18_fpn_scratch.py"
    theirs, ours = detector(classes=4, config=config).state_dict(), detector(classes=3, config=config)
    state = moved(theirs, ours)
    for stage in range(3):
        key = f"roi_heads.box_predictor.{stage}.cls_score.weight"
        assert torch.equal(state[key][[0, 2, 3]], theirs[key][[3, 0, 4]])
        assert state[key.replace("cls_score", "bbox_pred")] is theirs[key.replace("cls_score", "bbox_pred")]


def test_through_the_checkpointer_with_one_line_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    theirs, ours = detector(classes=4, seed=1), detector(classes=3)
    Checkpointer(theirs, str(tmp_path)).save("a")
    checkpointer = Checkpointer(ours)
    checkpointer.load(str(tmp_path / "a.pth"), strict="all", class_rows=ClassRows(OLD, NEW))
    score = ours.roi_heads.box_predictor.cls_score.weight
    assert torch.equal(score[[0, 2, 3]], theirs.roi_heads.box_predictor.cls_score.weight[[3, 0, 4]])
    lines = [record.getMessage() for record in caplog.records if "Class rows" in record.getMessage()]
    assert lines == [
        "Class rows by name, in 6 tensors: 2 of 3 classes come from the checkpoint's 4; newly initialised: fox"
    ]


def test_a_resumed_run_keeps_its_rows(tmp_path):
    ours = detector(classes=3)
    Checkpointer(ours, str(tmp_path)).save("model_0000003", iteration=3)
    other = detector(classes=3, seed=1)
    Checkpointer(other, str(tmp_path)).resume_or_load("", resume=True, class_rows=ClassRows(OLD, NEW))
    assert torch.equal(other.roi_heads.box_predictor.cls_score.weight, ours.roi_heads.box_predictor.cls_score.weight)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (OLD[:3], NEW, r"the checkpoint has 4 classes, but the key names 3 \(cat, dog, cow\)"),
        (OLD, NEW[:1], r"the model has 3 classes, but the data set names 1 \(hen\)"),
    ],
)
def test_lists_of_another_length(old, new, message):
    with pytest.raises(InputError, match=message):
        moved(detector(classes=4).state_dict(), detector(classes=3), old, new)


def test_invalid_lists():
    with pytest.raises(InputError, match=r"class_names: class 'a' occurs twice"):
        ClassRows(["a", "b", "a"], ["a"])
    with pytest.raises(InputError, match=r"the data set: class 'b' occurs twice"):
        ClassRows(["a", "b"], ["b", "b"])
    with pytest.raises(InputError, match=r"no class of the checkpoint \(Cat\) is in the data set \(cat\)"):
        ClassRows(["Cat"], ["cat"])


def test_weights_without_class_rows(tmp_path):
    state = {key: value for key, value in detector().state_dict().items() if key.startswith("backbone")}
    with pytest.raises(InputError, match="the checkpoint has no class scores"):
        moved(state, detector(classes=3))


def test_names_of_data_sets(shapes):
    spec = f"coco:{shapes}@{shapes.parent / 'images'}"
    own = read_class_names(spec)
    assert len(own) == 5
    coco = read_class_names("coco_2017_train")
    assert coco[0] == "person"
    assert len(coco) == 80
    assert ClassRows.from_config([*own[::-1], "person"], spec) == ClassRows([*own[::-1], "person"], own)
    assert ClassRows.from_config(spec, spec) == ClassRows(own, own)
    with pytest.raises(InputError, match="no data set 'coco_2071_train' is registered"):
        ClassRows.from_config("coco_2071_train", spec)
