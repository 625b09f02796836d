"""A yacs config of Detectron2's model zoo and the converted LazyConfig build equal models, optimizers, schedules and data."""

import importlib
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.data.detection_utils import build_augmentation
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from omegaconf import OmegaConf

from maskrcnn_ext import InputError
from maskrcnn_ext.config.yacs.to_lazy import convert_to_lazy, load_yaml
from tests.conftest import ROOT

ZOO = Path(model_zoo.get_config_file("Base-RCNN-FPN.yaml")).parent
SEGMENTATION = "COCO-InstanceSegmentation"
QUICK = [
    f"{SEGMENTATION}/mask_rcnn_R_50_C4_1x.yaml",
    f"{SEGMENTATION}/mask_rcnn_R_101_DC5_3x.yaml",
    f"{SEGMENTATION}/mask_rcnn_R_50_FPN_1x_giou.yaml",
    f"{SEGMENTATION}/mask_rcnn_X_101_32x8d_FPN_3x.yaml",
    "COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml",
    "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "Misc/scratch_mask_rcnn_R_50_FPN_9x_gn.yaml",
    "Cityscapes/mask_rcnn_R_50_FPN.yaml",
    "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml",
    "quick_schedules/keypoint_rcnn_R_50_FPN_normalized_training_acc_test.yaml",
]
# Other architectures, and keys without an equivalent in a LazyConfig.
REFUSED = (
    "Base-RetinaNet",
    "fast_rcnn_",
    "retinanet",
    "rpn_",
    "anoptic",
    "semantic",
    "dconv",
    "syncbn",
    "GCV",
    "/mask_rcnn_R_50_FPN_inference",
)
ALL = sorted(str(file.relative_to(ZOO)) for file in ZOO.rglob("*.yaml"))
CONVERTED = [name for name in ALL if not any(word in name.replace("faster", "") for word in REFUSED)]


@pytest.fixture
def tools(monkeypatch):
    """The comparison of models that the shipped configs are held to."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/configs"))
    return importlib.import_module("tests.configs.test_layout")


def loaded(tmp_path, name, *options):
    file = tmp_path / "converted.py"
    file.write_text(convert_to_lazy(load_yaml(name, list(options)), name))
    return LazyConfig.load(str(file))


def both(tmp_path, name, *options):
    """The yacs config, its model, the LazyConfig, and its model; the models on the meta device."""
    yacs = load_yaml(name, list(options))
    lazy = loaded(tmp_path, name, *options)
    yacs.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        expected, model = build_model(yacs), instantiate(lazy.model)
    for module in model.modules():
        if OmegaConf.is_config(getattr(module, "loss_weight", None)):  # compared as what it is: a mapping
            module.loss_weight = OmegaConf.to_container(module.loss_weight)
    return yacs, expected, lazy, model


def groups(optimizer):
    keys = ("lr", "weight_decay", "momentum", "nesterov")
    return sorted((*(group[key] for key in keys), len(group["params"])) for group in optimizer.param_groups)


def compare(tools, yacs, expected, lazy, model):
    assert tools.layout(model) == tools.layout(expected)
    assert tools.constants(model) == tools.constants(expected)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, p in expected.named_parameters() if p.requires_grad
    }

    solver = yacs.SOLVER
    assert lazy.train.max_iter == solver.MAX_ITER
    assert lazy.train.init_checkpoint == yacs.MODEL.WEIGHTS
    assert lazy.train.eval_period == yacs.TEST.EVAL_PERIOD
    lazy.optimizer.params.model = model
    optimizer = build_optimizer(yacs, expected)
    assert groups(instantiate(lazy.optimizer)) == groups(optimizer)
    theirs, ours = build_lr_scheduler(yacs, optimizer)._multiplier, instantiate(lazy.lr_multiplier)
    edges = [0, solver.WARMUP_ITERS, *solver.STEPS, solver.MAX_ITER - 1]
    for step in {min(max(edge + shift, 0), solver.MAX_ITER) for edge in edges for shift in (-1, 0, 1)}:
        assert ours(step / solver.MAX_ITER) == pytest.approx(theirs(step / solver.MAX_ITER), rel=1e-12)

    train, test = lazy.dataloader.train, lazy.dataloader.test
    assert (train.total_batch_size, train.num_workers) == (solver.IMS_PER_BATCH, yacs.DATALOADER.NUM_WORKERS)
    for split, names in ((train, yacs.DATASETS.TRAIN), (test, yacs.DATASETS.TEST)):
        assert ([split.dataset.names] if isinstance(split.dataset.names, str) else [*split.dataset.names]) == [*names]
    assert train.mapper.use_instance_mask == yacs.MODEL.MASK_ON
    assert train.mapper.get("use_keypoint", False) == yacs.MODEL.KEYPOINT_ON
    assert train.mapper.image_format == test.mapper.image_format == yacs.INPUT.FORMAT
    for split, is_train in ((train, True), (test, False)):
        wanted = build_augmentation(yacs, is_train)
        made = [instantiate(entry) for entry in split.mapper.augmentations][-len(wanted) :]
        assert [type(entry) for entry in made] == [type(entry) for entry in wanted]
        assert tuple(made[0].short_edge_length) == tuple(wanted[0].short_edge_length)
        assert made[0].max_size == wanted[0].max_size
        assert not is_train or made[0].is_range == wanted[0].is_range


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CONVERTED]
)
def test_the_zoo_converts(name, tools, tmp_path):
    compare(tools, *both(tmp_path, name))


def test_enough_of_the_zoo_converts():
    assert set(QUICK) <= set(CONVERTED)
    assert len(CONVERTED) > 40


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*ALL} - {*CONVERTED}))
def test_the_rest_of_the_zoo_is_an_error_of_one_line(name):
    with pytest.raises(InputError, match=r"expected|has no equivalent of") as caught:
        convert_to_lazy(load_yaml(name, []), name)
    assert "\n" not in str(caught.value)


DATA = """INPUT.MIN_SIZE_TRAIN (100,200) INPUT.MIN_SIZE_TRAIN_SAMPLING range INPUT.RANDOM_FLIP none INPUT.FORMAT RGB
    INPUT.MASK_FORMAT bitmask DATALOADER.NUM_WORKERS 0 DATALOADER.ASPECT_RATIO_GROUPING False DATASETS.TRAIN ('a','b')
    INPUT.CROP.ENABLED True"""
CHANGES = {
    "heads and solver": """MODEL.ANCHOR_GENERATOR.SIZES [[8,12],[16,24],[32,48],[64,96],[128,192]]
        MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS [[0.5,1.0]] MODEL.ANCHOR_GENERATOR.OFFSET 0.5
        MODEL.RPN.IOU_THRESHOLDS [0.2,0.6] MODEL.RPN.NMS_THRESH 0.8 MODEL.RPN.LOSS_WEIGHT 2.0 MODEL.RPN.CONV_DIMS [-1,-1]
        MODEL.PROPOSAL_GENERATOR.MIN_SIZE 4 MODEL.RPN.PRE_NMS_TOPK_TRAIN 500 MODEL.RPN.BBOX_REG_WEIGHTS (2.0,2.0,1.0,1.0)
        MODEL.ROI_HEADS.NUM_CLASSES 3 MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.1 MODEL.ROI_HEADS.NMS_THRESH_TEST 0.3
        TEST.DETECTIONS_PER_IMAGE 7 MODEL.ROI_BOX_HEAD.FC_DIM 128 MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 5
        MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION 10 MODEL.ROI_MASK_HEAD.CONV_DIM 64 MODEL.ROI_MASK_HEAD.NUM_CONV 2
        MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK True MODEL.ROI_HEADS.PROPOSAL_APPEND_GT False
        SOLVER.BASE_LR 0.005 SOLVER.MOMENTUM 0.8 SOLVER.NESTEROV True SOLVER.WEIGHT_DECAY 0.001 SOLVER.WEIGHT_DECAY_NORM 0.5
        SOLVER.BIAS_LR_FACTOR 2.0 SOLVER.WEIGHT_DECAY_BIAS 0.25 SOLVER.GAMMA 0.5 SOLVER.STEPS (100,200,400) SOLVER.MAX_ITER 300
        SOLVER.WARMUP_ITERS 0 SEED 3 TEST.EVAL_PERIOD 7""",
    "backbone, levels and cosine": """MODEL.FPN.OUT_CHANNELS 64 MODEL.FPN.FUSE_TYPE avg MODEL.BACKBONE.FREEZE_AT 0
        MODEL.RESNETS.DEPTH 152 MODEL.RESNETS.NUM_GROUPS 64 MODEL.RESNETS.WIDTH_PER_GROUP 4
        MODEL.RPN.IN_FEATURES ['p3','p4','p5'] MODEL.ROI_HEADS.IN_FEATURES ['p3','p4'] MODEL.ANCHOR_GENERATOR.SIZES [[32],[64],[128]]
        SOLVER.LR_SCHEDULER_NAME WarmupCosineLR SOLVER.WARMUP_METHOD constant""",
    "data, no masks": f"{DATA} MODEL.MASK_ON False",
}


@pytest.mark.parametrize("options", CHANGES.values(), ids=CHANGES)
def test_changed_keys_are_converted(options, tools, tmp_path):
    compare(tools, *both(tmp_path, f"{SEGMENTATION}/mask_rcnn_R_50_FPN_1x.yaml", *options.split()))


def test_settings_that_compare_does_not_check(tmp_path):
    options = DATA.split()
    train = loaded(tmp_path, f"{SEGMENTATION}/mask_rcnn_R_50_FPN_1x.yaml", *options).dataloader.train
    assert (train.aspect_ratio_grouping, train.mapper.instance_mask_format, train.mapper.recompute_boxes) == (
        False,
        "bitmask",
        True,
    )
    assert train.mapper.augmentations[0].crop_size == [0.9, 0.9]
    lvis = loaded(tmp_path, "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    assert lvis.dataloader.train.sampler.threshold == 0.001
    assert lvis.dataloader.evaluator._target_.__name__ == "LVISEvaluator"
    assert (
        loaded(tmp_path, "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml").dataloader.evaluator.dataset_name
        == "voc_2007_test"
    )
    more = loaded(
        tmp_path,
        f"{SEGMENTATION}/mask_rcnn_R_50_FPN_1x.yaml",
        "SOLVER.AMP.ENABLED",
        "True",
        "MODEL.DEVICE",
        "cpu",
        "SEED",
        "3",
    )
    assert (more.train.amp.enabled, more.train.device, more.train.seed) == (True, "cpu", 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["SOLVER.CLIP_GRADIENTS.ENABLED", "True", "MODEL.RESNETS.RES2_OUT_CHANNELS", "128"],
            r"no equivalent of MODEL\.RESNETS\.RES2_OUT_CHANNELS=128, SOLVER\.CLIP_GRADIENTS\.ENABLED=True",
        ),
        (["MODEL.RESNETS.DEPTH", "18"], r"MODEL\.RESNETS\.DEPTH=18: expected 50, 101 or 152"),
        (["MODEL.ROI_BOX_HEAD.NAME", "MyHead"], "MODEL.ROI_BOX_HEAD.NAME=MyHead: expected FastRCNNConvFCHead"),
        (["MODEL.ROI_MASK_HEAD.NAME", "MyHead"], "no equivalent of MODEL.ROI_MASK_HEAD.NAME=MyHead"),
        (["SOLVER.LR_SCHEDULER_NAME", "Mine"], "expected WarmupMultiStepLR or WarmupCosineLR"),
        (["DATALOADER.SAMPLER_TRAIN", "Mine"], "expected TrainingSampler or RepeatFactorTrainingSampler"),
        (["DATASETS.TRAIN", "()"], r"DATASETS\.TRAIN=\(\): expected one or more"),
        (["DATASETS.TEST", "('a','b')"], r"DATASETS\.TEST=\('a', 'b'\): expected one,"),
        (["SOLVER.NO_SUCH_KEY", "1"], "Non-existent"),
        (["SOLVER.MAX_ITER"], "expected KEY VALUE pairs"),
        (["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.KEYPOINT_ON", "True"], "MODEL.KEYPOINT_ON=True: expected"),
    ],
)
def test_keys_without_an_equivalent_are_named_in_one_line(options, message):
    name = f"{SEGMENTATION}/mask_rcnn_R_50_FPN_1x.yaml"
    with pytest.raises(InputError, match=message) as caught:
        convert_to_lazy(load_yaml(name, options), name)
    assert "\n" not in str(caught.value)


def test_a_key_set_to_its_default_is_ignored(tmp_path):
    name = "Misc/mask_rcnn_R_50_FPN_3x_syncbn.yaml"
    assert loaded(tmp_path, name, "TEST.PRECISE_BN.ENABLED", "False").model.backbone.norm == "SyncBN"


@pytest.mark.parametrize(("name", "message"), [("no_such.yaml", "no such file"), ("README.md", r"expected a \.yaml")])
def test_wrong_files_are_named(name, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match=message):
        load_yaml(name, [])


def test_a_broken_file_is_one_line(tmp_path):
    (tmp_path / "a.yaml").write_text("MODEL: [\n")
    with pytest.raises(InputError, match=r"a\.yaml, line 2: ") as caught:
        load_yaml(str(tmp_path / "a.yaml"), [])
    assert "\n" not in str(caught.value)
