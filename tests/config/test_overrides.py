"""Strict overrides: a typo is an error, valid overrides do what Detectron2 does, and every documented override is valid."""

import copy
import importlib
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.config.overrides import apply_overrides, parse_override
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS
from tests.conftest import ROOT

HEAD = "model.roi_heads.mask_head"
BOUNDARY = f"{HEAD}._target_=maskrcnn_ext.BoundaryMaskHead"


PANOPTIC = "common/models/panoptic_fpn.py"  # Detectron2's own


@cache
def loaded(name: str):
    return model_zoo.get_config(name) if name == PANOPTIC else get_config(name)


def fresh(name: str = "mask_rcnn_r50_fpn_1x"):
    return copy.deepcopy(loaded(name))


def plain(cfg):
    return OmegaConf.to_container(cfg, resolve=False)


VALID = {
    "a key of the config": ["train.max_iter=5", "optimizer.lr=1"],
    "quotes": ["train.output_dir='a b'"],
    "an argument that is left at its default": [f"{HEAD}.conv_norm=BN", "model.backbone.fuse_type=avg"],
    "an argument of the swapped target": [BOUNDARY, f"{HEAD}.boundary_loss_weight=2"],
    "the same before the swap": [f"{HEAD}.boundary_loss_weight=2", BOUNDARY],
    "twice": ["train.max_iter=5", "train.max_iter=6"],
    "a list": ["model.pixel_mean=[1,2,3,4,5]", "dataloader.train.dataset.names=[a,b]"],
    "an index": ["dataloader.train.mapper.augmentations.0.max_size=96", "model.pixel_mean.0=1"],
    "a number where several were": ["dataloader.train.mapper.augmentations.0.short_edge_length=96"],
    "several where a number was": ["model.roi_heads.box_pooler.output_size=[7,7]"],
    "a mapping where a number was": ["model.proposal_generator.loss_weight={loss_rpn_cls: 2.0}"],
    "a mapping is merged": ["train.checkpointer={period: 3}", "train={max_iter: 3}"],
    "in an argument that holds nothing yet": [
        "dataloader.train._target_=maskrcnn_ext.build_train_loader",
        "dataloader.train.copy_paste.probability=0.5",
        "dataloader.train.mosaic={probability: 0.1}",
    ],
    "null for a node": ["model.roi_heads.mask_pooler=null", "dataloader.evaluator=null"],
    "interpolation": [f"{HEAD}.num_classes=${{model.roi_heads.num_classes}}"],
    "over an interpolation": [f"{HEAD}.num_classes=1", "dataloader.evaluator.dataset_name=x"],
    "a whole number for another": ["model.roi_heads.box_predictor.smooth_l1_beta=1"],
    "any keyword of a target that takes any": ["model.backbone.bottom_up.stages.res4_dilation=2"],
    "null where it is a choice": ["train.checkpointer.max_to_keep=null", "train.epochs=3", "train.epochs=null"],
    "our keys": ["train.ema.decay=0.99", "train.amp.dtype=bf16", "train.best.metric=segm/AP"],
    "a hook": ["train.hooks=[{_target_: detectron2.engine.hooks.IterationTimer}]"],
    "what DistributedDataParallel takes": ["train.ddp.static_graph=true"],
    "added on purpose": ["+train.mine.deep=1", "+model.note=x", "++train.max_iter=7"],
    "below what is added on purpose": ["train.mine.deep=2", "+train.mine.deep=1"],
    "a node where nothing was": [
        "dataloader.train.sampler.threshold=0.1",
        "dataloader.train.sampler.dataset=${..dataset}",
        "dataloader.train.sampler._target_=maskrcnn_ext.repeat_factor_sampler",
    ],
}


@pytest.mark.parametrize("overrides", VALID.values(), ids=VALID)
def test_valid_overrides_have_the_same_effect_as_in_detectron2(overrides):
    cfg = fresh()
    assert apply_overrides(cfg, overrides) is cfg
    assert plain(cfg) == plain(LazyConfig.apply_overrides(fresh(), overrides))


@pytest.mark.parametrize("overrides", VALID.values(), ids=VALID)
def test_validity_does_not_depend_on_the_order(overrides):
    apply_overrides(fresh(), overrides[::-1])


INVALID = {
    "train.max_itr=5": "train.max_itr does not exist: did you mean train.max_iter?",
    "train.ema.decai=1": "did you mean train.ema.decay?",
    "foo=1": "foo does not exist: the config has dataloader, lr_multiplier, model, optimizer, train",
    "model.roi_head.num_classes=3": "did you mean model.roi_heads.num_classes?",
    "model.mask_head.num_classes=3": "model.roi_heads.mask_head.num_classes",
    "model.roi_heads.num_clases=3": "did you mean model.roi_heads.num_classes",  # **kwargs, but too like the one there is
    f"{HEAD}.conv_dim=[1]": "did you mean model.roi_heads.mask_head.conv_dims",
    f"{HEAD}={{conv_dim:[1]}}": "did you mean model.roi_heads.mask_head.conv_dims",
    "model.roi_heads.mask_pooler.sampling_rate=2": "did you mean model.roi_heads.mask_pooler.sampling_ratio?",
    "dataloader.train.use_keypoint=true": "did you mean dataloader.train.mapper.use_keypoint",  # at its default
    "dataloader.train.dataset.nmes=coco:a": "did you mean dataloader.train.dataset.names?",
    "dataloader.train.mapper.augmentations.7.max_size=1": "augmentations has 2 entries",
    "dataloader.train.mapper.augmentations.0.crop_size=1": "has _target_, interp, max_size, sample_style, short_edge_length",
    "train.seed.a=1": "train.seed is -1, which has no keys",
    "train.ddp.foo=1": "static_graph",
    "train.checkpointer.perod=3": "train.checkpointer.period",
    f"{HEAD}=SomeString": "would become the text 'SomeString': write model.roi_heads.mask_head._target_=SomeString",
    f"{HEAD}=3": "would become 3: set one of its keys",
    "model.roi_heads=[1]": "would become .1.: set one of its keys",
    "dataloader.train.dataset=coco:a.json@b": "set one of its keys .names.",
    "train.amp=true": "train.amp is a mapping: set one of its keys .enabled, dtype, on_cpu., as in train.amp.enabled=",
    "dataloader.train.mapper.augmentations=RandomFlip": r"expected a list.*augmentations=\[{_target_: RandomFlip}\]",
    "model.pixel_mean=1.5e": r"write model.pixel_mean=\[1.5e\]",
    "train.hooks=foo": "expected a list",
    "train.max_iter=abc": "expected a whole number, as the 90000",
    "train.max_iter=1e4": "write train.max_iter=10000",
    "train.max_iter=null": "expected a whole number",
    "train.max_iter=true": "expected a whole number",
    "train.amp.enabled=yes?": "expected true or false",
    "train.amp.enabled=2": "expected true or false",
    "optimizer.lr=fast": "expected a number",
    "train.output_dir=123": "write train.output_dir=\"'123'\"",
    "model.backbone.bottom_up.freeze_at=x": "expected a whole number",
    f"{HEAD}.vis_period=x": "expected a whole number, as the 0",  # the default of an argument that the config does not set
    f"{HEAD}._target_=maskrcnn_ext.BoundryMaskHead": "cannot be imported: did you mean maskrcnn_ext.BoundaryMaskHead",
    f"{HEAD}._target_=BoundaryMaskHead": "cannot be imported: write its module too",
    f"{HEAD}._target_=no_such_package.Head": "cannot be imported .*no_such_package",
    f"{HEAD}._target_=maskrcnn_ext.__version__": "is a str, expected a class or a function",
    f"{HEAD}._target_=3": "is a int, expected a class or a function",
    "model.roi_heads.mask_head.conv_dims=[256] model.roi_heads.mask_head._target_=torch.nn.Conv2d": "Conv2d takes no conv_dims: it takes",
    f"{HEAD}._target_=torch.nn.Conv2d": "Conv2d takes no input_shape: .*~model.roi_heads.mask_head.input_shape removes it",
    "train.hooks=[{_target_:no_such_package.Hook}]": r"train.hooks.0._target_=no_such_package.Hook cannot be imported",
    "train.hooks=[{_target_:detectron2.engine.hooks.EvalHook,perod:3}]": "EvalHook takes no perod",
    "train.max_iter": "expected KEY=VALUE",
    "train.max_iter=1,2": r"lists several values: write a list as train.max_iter=\[1,2\]",
    "a@b=3": "a key has no @",
    "train.output_dir=it's": "cannot read the override",
    "--resume=1": "cannot read the override",
    "~train.max_itr": r"did you mean train\.max_iter\?$",
    "~train.max_iter=3": "write ~train.max_iter without a value",
}


@pytest.mark.parametrize("override", INVALID)
def test_invalid_overrides_are_one_line_and_change_nothing(override):
    cfg = fresh()
    before = plain(cfg)
    with pytest.raises(InputError, match=INVALID[override]) as caught:
        apply_overrides(cfg, ["train.max_iter=77", *override.split()])
    assert "\n" not in str(caught.value)
    assert plain(cfg) == before


@pytest.mark.parametrize("order", [1, -1])
def test_removing_a_node_and_setting_its_key_contradict_each_other(order):
    overrides = ["model.roi_heads.mask_pooler=null", "model.roi_heads.mask_pooler.output_size=14"]
    with pytest.raises(InputError, match="contradict each other"):
        apply_overrides(fresh(), overrides[::order])


def test_a_broken_target_of_the_file_is_an_error_if_its_node_is_overridden():
    cfg = fresh()
    cfg.model.roi_heads.mask_head._target_ = "maskrcnn_ext.NoSuchHead"
    with pytest.raises(InputError, match=r"mask_head\._target_=maskrcnn_ext\.NoSuchHead cannot be imported"):
        apply_overrides(cfg, [f"{HEAD}.conv_norm=BN"])


def test_an_annotation_may_allow_another_kind_than_the_default():
    cfg = OmegaConf.create(
        {"part": L(torch.nn.Conv2d)(in_channels=1, out_channels=1, kernel_size=3)}, flags={"allow_objects": True}
    )
    assert apply_overrides(cfg, ["part.padding=same"]).part.padding == "same"
    with pytest.raises(InputError, match="expected a whole number"):
        apply_overrides(cfg, ["part.groups=same"])


def test_a_function_cannot_be_replaced_by_a_text():
    cfg = OmegaConf.create(
        {"part": L(torch.nn.TransformerEncoder)(norm=torch.nn.LayerNorm)}, flags={"allow_objects": True}
    )
    with pytest.raises(InputError, match=r"part\.norm is LayerNorm, which a text cannot replace"):
        apply_overrides(cfg, ["part.norm=BN"])


def test_deleting_keys_allows_another_scheduler():
    cfg = fresh()
    overrides = ["lr_multiplier.scheduler._target_=fvcore.common.param_scheduler.CosineParamScheduler"]
    overrides += [f"lr_multiplier.scheduler.{edge}_value={value}" for edge, value in (("start", 1), ("end", 0))]
    with pytest.raises(InputError, match="CosineParamScheduler takes no values"):
        apply_overrides(cfg, overrides)
    apply_overrides(cfg, [*overrides, "~lr_multiplier.scheduler.values", "~lr_multiplier.scheduler.milestones"])
    assert set(cfg.lr_multiplier.scheduler) == {"_target_", "start_value", "end_value"}


def test_deleting_an_entry_of_a_list():
    cfg = apply_overrides(fresh(), ["~dataloader.train.mapper.augmentations.1"])
    assert len(cfg.dataloader.train.mapper.augmentations) == 1


def test_no_override_at_all():
    assert plain(apply_overrides(fresh(), [])) == plain(fresh())


def test_additions_and_deletions_are_parsed():
    assert (parse_override("+a.b=1").adds, parse_override("++a.b=1").adds, parse_override("a.b=1").adds) == (
        True,
        True,
        False,
    )
    assert parse_override("~a.b").deletes
    assert parse_override("a.b=[1,x]").value == [1, "x"]


# The overrides in the documents, the tests and the messages of the package.

OVERRIDE = re.compile(r"(?<![\w./~+])((?:model|dataloader|train|optimizer|lr_multiplier)\.[\w.]+=[^\s`\"|]*)")
# Wrong on purpose, or an example of a head that the reader writes.
MEANT_WRONG = {
    "train.seed.a=1",
    "train.max_itr=5",
    "model.nothing=1",
    "model.roi_heads.num_clases=3",
    f"{HEAD}._target_=maskrcnn_ext.OneLayerMaskHead",
}
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("projects/*/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
SOURCES = [
    path
    for folder in ("scripts", "tests", "maskrcnn_ext", "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.parent.relative_to(ROOT).as_posix() not in ("tests/engine", "tests/cli", "tests/config")
]


@cache
def overrides_of(path: Path) -> list[str]:
    """Returns the overrides that a file mentions, without placeholders and patterns."""
    found = []
    for override in OVERRIDE.findall(path.read_text(encoding="utf-8")):
        key, _, value = override.partition("'")[0].rstrip(",.;:)").partition("=")
        if value.count("[") > value.count("]"):
            value += "]"
        is_blank = not value or value == "maskrcnn_ext" or re.fullmatch("[A-Z]|[.]+", value)
        if not is_blank and not re.search(r"[{}<>%*()\\$]", value) and f"{key}={value}" not in MEANT_WRONG:
            found.append(f"{key}={value}")
    return sorted(set(found))


MENTIONING = [path for path in [*DOCUMENTS, *SOURCES] if overrides_of(path)]


@cache
def swaps() -> list[str]:
    """Returns every swap of a node that a document or the catalogue of parts mentions."""
    parts = [
        override for part in [*MASK_HEADS, *POOLERS] for override in part.override().split() if "_target_" in override
    ]
    mentioned = [
        override for path in MENTIONING for override in overrides_of(path) if "._target_=maskrcnn_ext." in override
    ]
    return sorted({*parts, *mentioned})


CONFIGS = ("mask_rcnn_r50_fpn_1x", "mask_rcnn_r50_c4_1x", "domains/nuclei", PANOPTIC)


def rejected(config: str, overrides: list[str]) -> list[str]:
    """Returns the overrides that are not valid in a config. They are checked together: each check copies the config."""
    try:
        apply_overrides(fresh(config), overrides)
        return []
    except InputError:
        half = len(overrides) // 2
        return [*rejected(config, overrides[:half]), *rejected(config, overrides[half:])] if half else overrides


@cache
def valid_unswapped() -> set[str]:
    """Returns the mentioned overrides that are valid in some config as it is; no swap of a target lets another pass."""
    mentioned = {override for path in MENTIONING for override in overrides_of(path) if "_target_" not in override}
    left = sorted(mentioned)
    for config in CONFIGS:
        left = rejected(config, left)
    return mentioned - set(left)


@cache
def error_of(override: str) -> str:
    """Returns the error of an override, or "" if it is valid in some config, by itself or with a documented swap of its node."""
    if override in valid_unswapped():
        return ""
    message = ""
    for config in CONFIGS:
        beside = [[], *([swap] for swap in swaps() if override.startswith(swap.split("_target_")[0]))]
        for swap in beside:
            try:
                apply_overrides(fresh(config), [*swap, override])
                return ""
            except InputError as error:
                message = str(error)
    return message


@pytest.mark.parametrize("path", MENTIONING, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_documented_override_is_valid(path):
    assert not {override: message for override in overrides_of(path) if (message := error_of(override))}


def test_the_search_finds_the_overrides_of_the_documents():
    mentioned = {override for path in DOCUMENTS for override in overrides_of(path)}
    assert {
        BOUNDARY,
        "model.roi_heads.mask_pooler=null",
        "model.roi_heads.mask_head.strides=[16]",
        "dataloader.train.copy_paste.probability=0.5",
        "dataloader.train.dataset.names=coco:/data/train.json@/data/images",
    } <= mentioned
    assert len(mentioned) > 12


@pytest.mark.parametrize("part", [*MASK_HEADS, *POOLERS], ids=lambda part: part.name)
def test_the_overrides_in_the_stock_script_tests_are_valid(part, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/configs")
    small = importlib.import_module("tests.configs.test_stock_script").small
    overrides = [*small("mask_rcnn_r50_fpn_1x", "coco:a.json@b", "out"), *part.override().split()]
    cfg = apply_overrides(fresh(), overrides)
    assert plain(cfg) == plain(LazyConfig.apply_overrides(fresh(), overrides))
