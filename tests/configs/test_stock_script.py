"""Every config trains two iterations and evaluates under the unedited tools/lazyconfig_train_net.py."""

import gc
import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
from detectron2 import model_zoo
from detectron2.engine import default_argument_parser

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.config.zoo import config_path
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS
from tests.configs.test_shipped_configs import NAMES

HOOK = {"DETECTRON2_ENV_MODULE": "maskrcnn_ext.env"}
SIZE = 64
RESIZE = ("short_edge_length", "max_size", "target_height", "target_width")


def small(name: str, pair: str, output_dir: str) -> list[str]:
    """Overrides that make a config small enough for a test and leave its parts as they are."""
    cfg = get_config(name)
    heads = cfg.model.roi_heads
    overrides = {
        "dataloader.train.dataset.names": pair,
        "dataloader.test.dataset.names": pair,
        "dataloader.train.total_batch_size": 2,
        "dataloader.train.num_workers": 0,
        "dataloader.test.num_workers": 0,
        "model.roi_heads.num_classes": 1,
        "model.roi_heads.batch_size_per_image": 4,
        "model.proposal_generator.post_nms_topk": "[20,5]",
        "train.output_dir": output_dir,
        "train.device": "cpu",
        # Random weights under a frozen BatchNorm amplify what they see: small pixels and steps keep the numbers finite.
        "model.pixel_std": "[10000,10000,10000]",
        "optimizer.lr": 1e-7,
        "train.init_checkpoint": "''",
        "train.amp.enabled": False,
        "train.seed": 1,
        "train.max_iter": 2,
        "train.eval_period": 2,
        "train.log_period": 1,
    }
    if "pretrained" in cfg.model.backbone.get("bottom_up", {}):  # timm's weights come from a network
        overrides["model.backbone.bottom_up.pretrained"] = False
    if "net" in cfg.model.backbone:  # a ViT
        overrides.update({"model.backbone.net.img_size": 128, "model.backbone.square_pad": 128})
    # The first fully connected layer of a box head has most of a model's weights.
    box_heads = {f"box_heads.{index}": head for index, head in enumerate(heads.get("box_heads", []))}
    for node, head in (box_heads or ({"box_head": heads.box_head} if "box_head" in heads else {})).items():
        overrides[f"model.roi_heads.{node}.fc_dims"] = [16, head.fc_dims[-1]]
    if "keypoint_head" in heads:  # the people have COCO's 17
        overrides.update({"model.roi_heads.keypoint_head.num_keypoints": 17, "dataloader.evaluator.kpt_oks_sigmas": []})
    for split in ("train", "test"):
        for index, augmentation in enumerate(cfg.dataloader[split].mapper.augmentations):
            for key in RESIZE:
                if key in augmentation:
                    overrides[f"dataloader.{split}.mapper.augmentations.{index}.{key}"] = SIZE
            if "crop_size" in augmentation:
                overrides[f"dataloader.{split}.mapper.augmentations.{index}.crop_size"] = "[48,48]"
    return [f"{key}={value}" for key, value in overrides.items()]


@pytest.fixture(scope="module")
def pair(people, tmp_path_factory):
    """Two of the people's images."""
    file, _, folder = people.removeprefix("coco:").partition("@")
    content = json.loads(Path(file).read_text())
    content["images"] = content["images"][:2]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [annotation for annotation in content["annotations"] if annotation["image_id"] in kept]
    few = tmp_path_factory.mktemp("pair") / "pair.json"
    few.write_text(json.dumps(content))
    return f"coco:{few}@{folder}"


@pytest.fixture(scope="module")
def stock(stock_script):
    spec = importlib.util.spec_from_file_location("stock_lazyconfig_train_net", stock_script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def collected():
    """Frees a run's model before the next one's: what refers to itself waits for the collector, at a gigabyte each."""
    yield
    gc.collect()


# Each has another schedule (test_shipped_configs, test_schedule), another data set (test_domains) or a larger backbone than one
# that runs by default.
SLOW = re.compile(
    r"_3x|_lsj_[24]00ep|[rx]101|(faster|keypoint|cascade_mask)_rcnn_r50|regnety|lite2|mobilenetv4|vitdet_[lh]|cascade_mask_rcnn_vitdet"
    r"|domains/(?!shapes|crowdpose|isaid|spleen|nuclei)"
)
RUNS = [pytest.param(name, marks=pytest.mark.slow) if SLOW.search(name) else name for name in NAMES]


@pytest.mark.parametrize("name", RUNS)
def test_a_config_trains_and_evaluates(name, stock, pair, tmp_path):
    arguments = ["--config-file", str(config_path(name)), "--num-gpus", "0", *small(name, pair, str(tmp_path))]
    stock.main(default_argument_parser().parse_args(arguments))
    check_run(tmp_path)
    assert (tmp_path / "model_final.pth").is_file()


def check_run(folder):
    """Two finite losses, and an evaluation; returns the last iteration's scalars."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    trained = [line for line in lines if "total_loss" in line]
    assert len(trained) == 2
    assert all(0 < line["total_loss"] < math.inf for line in trained)
    assert any("bbox/AP" in line for line in lines)
    return trained[-1]


def run_zoo(stock, pair, folder, config, overrides):
    """Runs a config of Detectron2's installed model zoo, changed only by overrides."""
    target = [f"dataloader.{split}.dataset._target_=maskrcnn_ext.get_dataset_dicts" for split in ("train", "test")]
    ours = "mask_rcnn_r50_c4_1x" if "C4" in config else "mask_rcnn_r50_fpn_1x"
    file = model_zoo.get_config_file(f"COCO-InstanceSegmentation/{config}.py")
    trunk = "model.backbone.freeze_at=5" if "C4" in config else "model.backbone.bottom_up.freeze_at=5"
    overrides = [*target, *small(ours, pair, str(folder)), trunk, *overrides]
    stock.main(default_argument_parser().parse_args(["--config-file", file, "--num-gpus", "0", *overrides]))


# Their fully connected layers have tens of millions of weights, ImplicitPointRendMaskHead's 290 million.
WIDE = {
    "DCTMaskHead": "fc_dims=[16]",
    "ImplicitPointRendMaskHead": "fc_dim=16",
    "MLPMaskHead": "fc_dims=[16]",
    "MaskScoringHead": "fc_dims=[16]",
    "PatchDCTMaskHead": "patch_dim=16",
}


BOTTOM_UP = "model.backbone.bottom_up"
MOBILENET = [
    f"{BOTTOM_UP}._target_=maskrcnn_ext.TimmBackbone",
    f"{BOTTOM_UP}.name=mobilenetv4_conv_small_035",
    f"{BOTTOM_UP}.pretrained=false",
]
# Pixels as small() sets the model's.
SMALL_BACKBONE = [*MOBILENET, f"{BOTTOM_UP}.pixel_std=[10000,10000,10000]"]


def backbone_for(part):
    """The config's ResNet-50 for the first head and the first pooler; a small network for the others, which read the same pyramid."""
    return [] if part in (MASK_HEADS[0], POOLERS[0]) else SMALL_BACKBONE


@pytest.mark.parametrize("part", MASK_HEADS, ids=lambda part: part.name)
def test_a_mask_head_on_detectron2s_own_config(part, stock, pair, tmp_path):
    overrides = [*part.override().split(), *backbone_for(part)]
    if part.name in WIDE:
        overrides.append(f"model.roi_heads.mask_head.{WIDE[part.name]}")
    run_zoo(stock, pair, tmp_path, "mask_rcnn_R_50_FPN_1x", overrides)
    scalars = check_run(tmp_path)
    assert "mask_rcnn/accuracy" in scalars
    assert any(name.startswith("loss_mask") for name in scalars)


@pytest.mark.parametrize("part", POOLERS, ids=lambda part: part.name)
def test_a_pooler_on_detectron2s_own_config(part, stock, pair, tmp_path):
    overrides = part.override().split()
    overrides += [line.replace("mask_pooler", "box_pooler") for line in overrides]
    overrides += backbone_for(part)
    if part.name == "DeformableROIPooler":
        overrides += [f"model.roi_heads.{node}_pooler.fc_dim=16" for node in ("box", "mask")]
    run_zoo(stock, pair, tmp_path, "mask_rcnn_R_50_FPN_1x", overrides)
    check_run(tmp_path)


def test_a_mask_loss_on_detectron2s_own_c4(stock, pair, tmp_path):
    head = "model.roi_heads.mask_head"
    overrides = [
        f"{head}._target_=maskrcnn_ext.BoundaryMaskHead",
        f"{head}.mask_loss=bce+lovasz",
        f"{head}.num_classes=1",
    ]
    run_zoo(stock, pair, tmp_path, "mask_rcnn_R_50_C4_1x", overrides)
    assert "loss_mask_boundary" in check_run(tmp_path)


@pytest.mark.parametrize(
    ("config", "part", "message"),
    [
        (
            "mask_rcnn_R_50_FPN_1x",
            "PointRendMaskHead",
            "PointRendMaskHead takes the feature maps .*set model.roi_heads.mask_pooler=null",
        ),
        (
            "mask_rcnn_R_50_C4_1x",
            "DCTMaskHead",
            "DCTMaskHead was built for RoI features of 14 x 14 and the pooler returns 7 x 7: .*input_shape.height=7",
        ),
    ],
)
def test_incompatible_parts_stop_the_stock_script_at_once(config, part, message, stock, pair, tmp_path):
    head = "model.roi_heads.mask_head"
    overrides = [f"{head}._target_=maskrcnn_ext.{part}", *([f"{head}.{WIDE[part]}"] if part in WIDE else [])]
    with pytest.raises(InputError, match=message):
        run_zoo(stock, pair, tmp_path, config, overrides)
    assert not list(tmp_path.glob("*.pth"))


@pytest.mark.slow
@pytest.mark.realdata
def test_real_nuclei_by_name_through_the_hook(real_data, stock_script, run_python, tmp_path):
    overrides = ["train.device=cpu", "train.max_iter=2", "train.eval_period=2", "train.log_period=1"]
    overrides += ["model.proposal_generator.post_nms_topk=[100,50]", f"train.output_dir={tmp_path / 'run'}"]
    config = config_path("domains/nuclei.py")
    done = run_python(stock_script, "--config-file", config, "--num-gpus", "0", *overrides, env=HOOK)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    assert any("total_loss" in line for line in lines)
    assert any("bbox/AP" in line for line in lines)


def test_a_backbone_of_timm_on_detectron2s_own_config(stock, pair, tmp_path):
    run_zoo(stock, pair, tmp_path, "mask_rcnn_R_50_FPN_1x", SMALL_BACKBONE)
    check_run(tmp_path)


def test_pixels_of_another_config_are_an_error_in_the_first_step(stock, pair, tmp_path):
    with pytest.raises(InputError, match=r"the model divides them.*model\.backbone\.bottom_up\.pixel_std="):
        run_zoo(stock, pair, tmp_path, "mask_rcnn_R_50_FPN_1x", MOBILENET)
