"""yacs configs: the heads by name under Detectron2's own build, with the plugin hook and nothing else."""

import inspect
import json

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, build_backbone, build_model, build_roi_heads
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.mask_head import build_mask_head

from maskrcnn_ext import BoxPredictor, InputError, SimpleFeaturePyramid, add_maskrcnn_ext_config
from maskrcnn_ext.modeling.backbones.norms import has_batch_norm
from maskrcnn_ext.modeling.fit_check import check_fit
from maskrcnn_ext.modeling.parts import MASK_HEADS
from maskrcnn_ext.modeling.yacs import register_backbones, register_mask_heads, register_roi_heads, registered_name

# What tools/plain_train_net.py does: yacs config, build_model, its own loop.
PLAIN = """
import json, sys, torch
from detectron2.config import get_cfg
from detectron2.data import build_detection_train_loader
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage
import maskrcnn_ext
cfg = get_cfg()
maskrcnn_ext.add_maskrcnn_ext_config(cfg)
cfg.merge_from_list(json.loads(sys.argv[1]))
maskrcnn_ext.get_dataset_dicts(cfg.DATASETS.TRAIN)
model = build_model(cfg)
model.train()
optimizer = build_optimizer(cfg, model)
torch.manual_seed(0)
with EventStorage() as storage:
    for data, _ in zip(build_detection_train_loader(cfg), range(2)):
        losses = model(data)
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    print(type(model.roi_heads.mask_head).__name__, *sorted(losses), all(torch.isfinite(v) for v in losses.values()))
"""


def small_cfg(name, *, own=True):
    cfg = get_cfg()
    if own:
        add_maskrcnn_ext_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_MASK_HEAD.NAME = name
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 2
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    return cfg


LEVELS = {f"p{level}": ShapeSpec(channels=16, stride=2**level) for level in range(2, 6)}
POOLED = ShapeSpec(channels=16, height=14, width=14)


@pytest.fixture(autouse=True)
def registered():
    register_mask_heads()


def test_registering_twice_changes_nothing():
    before = dict(ROI_MASK_HEAD_REGISTRY)
    register_mask_heads()
    assert dict(ROI_MASK_HEAD_REGISTRY) == before


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
@pytest.mark.parametrize("own", [True, False], ids=["declared", "undeclared"])
def test_a_head_by_name(part, own):
    cfg = small_cfg(registered_name(part), own=own)
    with torch.device("meta"):  # the shapes are enough
        head = build_mask_head(cfg, LEVELS if part.pyramid else POOLED)
        twin = part.load()(POOLED, num_classes=3, conv_dims=[16, 16, 16])
    assert type(head) is part.load()
    assert head.num_classes == 3
    shapes = {name: value.shape for name, value in head.state_dict().items()}
    assert shapes == {name: value.shape for name, value in twin.state_dict().items()}


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_every_keyword_of_a_head_is_a_documented_key(part):
    cfg = small_cfg(registered_name(part))
    keys = {key.lower() for key in cfg.MODEL.MASKRCNN_EXT[part.name]}
    assert keys == set(part.load().own_defaults()) - {"strides", "base_options"}


def test_keys_reach_the_head():
    cfg = small_cfg("BoundaryMaskHead")
    cfg.merge_from_list(["MODEL.MASKRCNN_EXT.BoundaryMaskHead.MASK_LOSS", "bce+dice"])
    cfg.merge_from_list(["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True])
    head = build_mask_head(cfg, LEVELS)
    assert head.mask_loss == "bce+dice"
    assert head.num_classes == 1
    assert head.strides == [4, 8, 16, 32]


def test_a_base_head_reads_its_own_node():
    cfg = small_cfg("MaskScoringHead")
    own = cfg.MODEL.MASKRCNN_EXT
    own.MaskScoringHead.BASE = "DCTMaskHead"
    own.DCTMaskHead.NUM_COEFFICIENTS = 100
    head = build_mask_head(cfg, POOLED)
    assert head.base.predictor.out_features == 100


def test_a_misspelt_key_is_an_error():
    with pytest.raises(AssertionError, match=r"Non-existent key: .*BOUNDARY_WEIGHT"):
        small_cfg("BoundaryMaskHead").merge_from_list(["MODEL.MASKRCNN_EXT.BoundaryMaskHead.BOUNDARY_WEIGHT", 1.0])


def test_a_pooled_head_without_a_pooler_is_an_error():
    with pytest.raises(InputError, match=r"DCTMaskHead takes pooled features: set MODEL.ROI_MASK_HEAD.POOLER_TYPE"):
        build_mask_head(small_cfg("DCTMaskHead"), LEVELS)


def test_under_a_plain_training_loop(people, run_python):
    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "",
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.MASK_ON": True,
        "MODEL.ROI_MASK_HEAD.NAME": "BoundaryMaskHead",
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
        "MODEL.MASKRCNN_EXT.BoundaryMaskHead.BOUNDARY_LOSS_WEIGHT": 0.5,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 4,
        "MODEL.PIXEL_STD": [10000.0, 10000.0, 10000.0],
        "DATASETS.TRAIN": [people],
        "INPUT.MIN_SIZE_TRAIN": [64],
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.BASE_LR": 1e-7,
        "DATALOADER.NUM_WORKERS": 0,
    }
    flat = [item for pair in options.items() for item in pair]
    done = run_python("-c", PLAIN, json.dumps(flat), env={"DETECTRON2_ENV_MODULE": "maskrcnn_ext.env"})
    expected = "BoundaryMaskHead loss_box_reg loss_cls loss_mask loss_mask_boundary loss_rpn_cls loss_rpn_loc True"
    assert done.stdout.strip().splitlines()[-1:] == [expected], done.stderr[-3000:]


def test_a_whole_model_whose_res5_halves_the_pooled_grid():
    cfg = small_cfg("DCTMaskHead")
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"  # C4, the default of get_cfg()
    assert cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION == 14
    model = build_model(cfg)
    assert model.roi_heads.mask_head.input_shape.height == 7
    check_fit(model)


def timm_cfg(**own):
    cfg = get_cfg()
    add_maskrcnn_ext_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "TimmFPN"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    own = {"NAME": "mobilenetv4_conv_small_035", "PRETRAINED": False, **own}
    cfg.merge_from_list(
        [entry for key, value in own.items() for entry in (f"MODEL.MASKRCNN_EXT.TimmBackbone.{key}", value)]
    )
    return cfg


def test_a_backbone_of_timm_by_name():
    register_backbones()
    register_backbones()
    cfg = timm_cfg(NORM="BN", DROP_PATH_RATE=0.1, ACTIVATION_CHECKPOINTING=True)
    cfg.MODEL.BACKBONE.FREEZE_AT = 1
    cfg.MODEL.PIXEL_STD = [57.375, 57.12, 58.395]
    cfg.INPUT.FORMAT = "RGB"
    backbone = build_backbone(cfg)
    bottom_up = backbone.bottom_up
    assert list(backbone.output_shape()) == ["p2", "p3", "p4", "p5", "p6"]
    assert (bottom_up.input.std, bottom_up.input.input_format) == ([57.375, 57.12, 58.395], "RGB")
    assert not bottom_up.net.conv_stem.weight.requires_grad
    assert bottom_up.net.grad_checkpointing
    assert has_batch_norm(bottom_up)
    assert backbone(torch.zeros(1, 3, 64, 64))["p6"].shape == (1, 256, 1, 1)


def test_the_pyramid_of_plain_vits_by_name():
    register_backbones()
    cfg = timm_cfg(NAME="deit_tiny_patch16_224")
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.FPN.NORM = "TimmSimpleFeaturePyramid", "LN"
    backbone = build_backbone(cfg)
    assert type(backbone) is SimpleFeaturePyramid
    assert backbone.bottom_up.is_plain
    found = backbone(torch.zeros(1, 3, 64, 64))
    assert [tuple(found[name].shape) for name in ("p2", "p6")] == [(1, 256, 16, 16), (1, 256, 1, 1)]


def test_the_value_of_every_kind_reaches_the_backbone(tmp_path):
    register_backbones()
    with pytest.raises(InputError, match="no such file"):
        build_backbone(timm_cfg(PRETRAINED=str(tmp_path / "a.pth")))
    with pytest.raises(InputError, match=r"add_maskrcnn_ext_config\(cfg\)"):
        build_backbone(timm_cfg(NAME=""))
    assert not has_batch_norm(build_backbone(timm_cfg(PRETRAINED="checkpoint")))


def test_pixels_of_a_yacs_config_always_fit():
    register_backbones()
    cfg = timm_cfg()
    cfg.MODEL.PIXEL_STD, cfg.INPUT.FORMAT = [57.375, 57.12, 58.395], "RGB"
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2"]
    check_fit(build_model(cfg))


def box_predictor_cfg(name="BoxPredictorROIHeads", **own):
    register_roi_heads()
    cfg = small_cfg("MaskRCNNConvUpsampleHead", own=bool(own))
    cfg.MODEL.ROI_HEADS.NAME = name
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 1, 8
    cfg.merge_from_list(
        [entry for key, value in own.items() for entry in (f"MODEL.MASKRCNN_EXT.BoxPredictor.{key}", value)]
    )
    return cfg


def test_the_box_predictor_by_name():
    heads = build_roi_heads(box_predictor_cfg(SUPPRESSION="mask", SOFT_SIGMA=0.3, USE_MASKNESS=True), LEVELS)
    predictor = heads.box_predictor
    assert type(predictor) is BoxPredictor
    assert (predictor.suppression, predictor.soft_sigma, predictor.use_maskness) == ("mask", 0.3, True)
    stock = build_roi_heads(box_predictor_cfg("StandardROIHeads"), LEVELS)
    assert type(stock.box_predictor) is FastRCNNOutputLayers
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (heads, stock)]
    assert shapes[0] == shapes[1]
    undeclared = build_roi_heads(box_predictor_cfg(), LEVELS).box_predictor
    assert (type(undeclared), undeclared.suppression) == (BoxPredictor, "hard")


def test_every_keyword_of_the_box_predictor_is_a_key():
    parameters = inspect.signature(BoxPredictor.__init__).parameters.values()
    own = {p.name.upper(): p.default for p in parameters if p.kind == p.KEYWORD_ONLY}
    assert dict(box_predictor_cfg(SUPPRESSION="hard").MODEL.MASKRCNN_EXT.BoxPredictor) == own


def test_a_wrong_selection_in_a_yacs_config_is_an_error():
    with pytest.raises(InputError, match="suppression=masks: expected hard, soft, diou or mask"):
        build_roi_heads(box_predictor_cfg(SUPPRESSION="masks"), LEVELS)
    cfg = box_predictor_cfg(SUPPRESSION="mask")
    cfg.MODEL.MASK_ON = False
    with pytest.raises(InputError, match="has no mask head"):
        build_roi_heads(cfg, LEVELS)
