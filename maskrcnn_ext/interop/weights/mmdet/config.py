"""Reads a model's arithmetic, which does not follow from its weights, from the config inside an MMDetection checkpoint."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskrcnn_ext.common.nested import count_values
from maskrcnn_ext.errors import InputError

_CAFFE = {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "to_rgb": False}
_PYTORCH = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
STYLES = ("caffe", "pytorch")

# MMDetection's RegNetX keep the colours of the networks' authors.
_REGNET = {"mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395], "to_rgb": False}
# The default of MMDetection's Swin Transformer; other backbones have none.
_DROP_PATH = {"swin": 0.1}
# Of the stages of MMDetection's cascades.
CASCADE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))

# Keys of MMDetection's config for which Detectron2 supports one value only, and that value.
_FIXED: dict[str, Any] = {
    "model.backbone.out_indices": [0, 1, 2, 3],
    "model.neck.type": "FPN",
    "model.neck.num_outs": 5,
    "model.neck.add_extra_convs": False,
    "model.rpn_head.anchor_generator.center_offset": 0.0,
    "model.rpn_head.anchor_generator.strides": [4, 8, 16, 32, 64],
    "model.rpn_head.bbox_coder.type": "DeltaXYWHBBoxCoder",
    "model.rpn_head.bbox_coder.target_means": [0.0] * 4,
    "model.rpn_head.loss_cls.use_sigmoid": True,
    "model.roi_head.bbox_roi_extractor.type": "SingleRoIExtractor",
    "model.roi_head.bbox_roi_extractor.roi_layer.output_size": 7,
    "model.roi_head.bbox_roi_extractor.featmap_strides": [4, 8, 16, 32],
    "model.roi_head.bbox_roi_extractor.finest_scale": 56,
    "model.roi_head.mask_roi_extractor.type": "SingleRoIExtractor",
    "model.roi_head.mask_roi_extractor.roi_layer.output_size": 14,
    "model.test_cfg.rpn.nms.type": "nms",
    "model.test_cfg.rcnn.nms.type": "nms",
    "model.test_cfg.rcnn.mask_thr_binary": 0.5,
}
# The same for each box head and mask head.
_FIXED_HEADS: dict[str, dict[str, Any]] = {
    "bbox_head": {
        "bbox_coder.type": "DeltaXYWHBBoxCoder",
        "bbox_coder.target_means": [0.0] * 4,
        "loss_cls.use_sigmoid": False,
    },
    "mask_head": {"type": "FCNMaskHead"},
}
_RESNET_KEYS = {"strides": [1, 2, 2, 2], "dilations": [1, 1, 1, 1]}
# Family of backbones -> the names of its classes in MMDetection, and its keys with one supported value.
_BACKBONES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "resnet": (("ResNet", "ResNeXt"), _RESNET_KEYS),
    "regnet": (("RegNet",), {"strides": [2, 2, 2, 2], "dilations": [1, 1, 1, 1], "style": "pytorch"}),
    "swin": (
        ("SwinTransformer",),
        {
            "strides": [4, 2, 2, 2],
            "mlp_ratio": 4,
            "qkv_bias": True,
            "qk_scale": None,
            "patch_norm": True,
            "use_abs_pos_embed": False,
        },
    ),
    "convnext": (
        ("mmpretrain.ConvNeXt", "mmcls.ConvNeXt", "ConvNeXt"),
        {"gap_before_final_norm": False, "linear_pw_conv": True},
    ),
}
# Detector -> its RoI head.
_DETECTORS = {"MaskRCNN": "StandardRoIHead", "FasterRCNN": "StandardRoIHead", "CascadeRCNN": "CascadeRoIHead"}
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class MMDetSettings:
    """A model's arithmetic. The defaults are those of MMDetection's baselines.

    Attributes:
        stride_in_1x1: whether the first 1 x 1 convolution of a stage has its stride (Caffe's style).
        mean: mean of the pixels, in the model's order of channels.
        std: standard deviation of the pixels, in the same order.
        to_rgb: whether the model takes R, G, B rather than B, G, R.
        scale: longest and shortest side of the resized image, in pixels.
        anchor_scale: side of the square anchor, in strides.
        ratios: height / width of the anchors.
        rpn_stds: factors of the RPN's deltas.
        box_stds: factors of the box head's deltas, for each stage of a cascade.
        sampling_ratios: RoIAlign's sampling ratios for boxes and masks.
        aligned: whether RoIAlign is aligned, for boxes and masks.
        rpn_test: nms_pre, max_per_img, iou_threshold, min_bbox_size.
        box_test: score_thr, max_per_img, iou_threshold.
        drop_path_rate: probability with which training skips the last block of a Swin Transformer or ConvNeXt.

    Example:
        >>> MMDetSettings.of_baseline("caffe").to_rgb
        False
    """

    stride_in_1x1: bool
    mean: Sequence[float]
    std: Sequence[float]
    to_rgb: bool
    scale: tuple[int, int] = (1333, 800)
    anchor_scale: float = 8
    ratios: Sequence[float] = (0.5, 1.0, 2.0)
    rpn_stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
    box_stds: Sequence[Sequence[float]] = CASCADE_STDS[:1]
    sampling_ratios: tuple[int, int] = (0, 0)
    aligned: tuple[bool, bool] = (True, True)
    rpn_test: tuple[int, int, float, float] = (1000, 1000, 0.7, 0.0)
    box_test: tuple[float, int, float] = (0.05, 100, 0.5)
    drop_path_rate: float = 0.0

    @classmethod
    def of_baseline(cls, style: str, stages: int = 1) -> MMDetSettings:
        """Returns the settings of MMDetection's baselines.

        Args:
            style: "caffe" or "pytorch" for ResNets; else the family of the backbone: "regnet", "swin" or "convnext".
            stages: box heads; more than one for a cascade.

        Raises:
            InputError: the baselines have no cascade of so many stages.
        """
        if stages not in (1, len(CASCADE_STDS)):
            raise InputError(f"{stages} box heads: expected 1 or {len(CASCADE_STDS)} in a file without a config")
        pixels: dict[str, Any] = {"caffe": _CAFFE, "regnet": _REGNET}.get(style, _PYTORCH)
        return cls(
            stride_in_1x1=style == "caffe",
            box_stds=CASCADE_STDS[:stages],
            drop_path_rate=_DROP_PATH.get(style, 0.0),
            **pixels,
        )


def parse_config(text: str) -> dict[str, Any]:
    """Returns the values that a config's text assigns, without running it. Values that are not literals become None.

    Raises:
        ValueError: the text is not Python, or a value repeats others until it is too large.

    Example:
        >>> parse_config("model = dict(type='MaskRCNN', neck=None)")
        {'model': {'type': 'MaskRCNN', 'neck': None}}
    """
    names: dict[str, Any] = {}
    known: dict[int, int] = {}
    kept = []  # of names that are assigned again, for the ids in `known`
    try:
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = names[node.targets[0].id] = _evaluate(node.value, names)
                kept.append(value)
                if count_values(value, known) > _MOST_VALUES:
                    raise ValueError(f"{node.targets[0].id} has more than {_MOST_VALUES:,} values")
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from error
    return names


def _evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Returns the value of a literal, of ``dict(...)``, or of a name in `names`; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_evaluate(entry, names) for entry in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(_evaluate(key, names)): _evaluate(value, names) for key, value in pairs if key is not None}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _evaluate(keyword.value, names) for keyword in node.keywords if keyword.arg is not None}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return -node.operand.value  # type: ignore[operator]
    return names.get(node.id) if isinstance(node, ast.Name) else None


def read_settings(
    cfg: Mapping[str, Any], source: str, *, family: str = "resnet", stages: int | None = None
) -> MMDetSettings:
    """Returns the settings in a config of MMDetection 2 or 3.

    Args:
        cfg: from :func:`parse_config`.
        source: name of the checkpoint in messages.
        family: "resnet", "regnet", "swin" or "convnext": the backbone whose weights are in the checkpoint.
        stages: number of box heads in the checkpoint if it is a cascade's; None for another detector.

    Raises:
        InputError: Detectron2 does not support the model, or the weights are those of another one; the message names the key.
    """

    def get(key: str, default: Any = None) -> Any:
        return _get(cfg, key, default)

    def refuse(key: str, expected: Any, found: Any = None) -> InputError:
        found = get(key) if found is None else found
        return InputError(
            f"{source}: its config has {key}={found!r}, and Detectron2's Mask R-CNN supports only {expected!r}"
        )

    detector = get("model.type")
    if detector not in _DETECTORS:
        raise refuse("model.type", " or ".join(_DETECTORS))
    if (detector == "CascadeRCNN") != (stages is not None):
        held = "one box head" if stages is None else f"the {stages} box heads of a cascade"
        raise InputError(f"{source}: its config has model.type={detector!r}, and its weights are those of {held}")
    names, own = _BACKBONES[family]
    fixed = {**_FIXED, **{f"model.backbone.{key}": value for key, value in own.items()}}
    fixed["model.roi_head.type"] = _DETECTORS[detector]
    backbone = get("model.backbone.type", names[0])
    if backbone not in names:
        raise InputError(
            f"{source}: its config has model.backbone.type={backbone!r}, and its weights are those of a {names[0]}"
        )
    for key, expected in fixed.items():
        if get(key, expected) != expected:
            raise refuse(key, expected)
    box_heads, _ = (
        _check_heads(cfg, kind, _DETECTORS[detector] == "CascadeRoIHead", stages or 1, refuse, source)
        for kind in _FIXED_HEADS
    )
    anchors = "model.rpn_head.anchor_generator"
    scales = get(f"{anchors}.scales", [8])
    if len(scales) != 1:
        raise refuse(f"{anchors}.scales", [8])
    norm = _find(cfg, "Normalize")  # of MMDetection 2
    style = MMDetSettings.of_baseline(get("model.backbone.style", "pytorch") if family == "resnet" else family)
    pixels = get("model.data_preprocessor", norm or {})
    pipeline = get("test_pipeline", get("data.test.pipeline", []))
    scale = (_find(pipeline, "Resize") or {}).get("scale") or (_find(pipeline, "MultiScaleFlipAug") or {}).get(
        "img_scale"
    )
    rpn, rcnn = (get(f"model.test_cfg.{part}", get(f"test_cfg.{part}", {})) for part in ("rpn", "rcnn"))
    layers = [get(f"model.roi_head.{part}_roi_extractor.roi_layer", {}) for part in ("bbox", "mask")]
    default_stds = CASCADE_STDS if len(box_heads) == len(CASCADE_STDS) else CASCADE_STDS[:1] * len(box_heads)
    box_stds = [
        tuple(_get(head, "bbox_coder.target_stds", stds)) for head, stds in zip(box_heads, default_stds, strict=True)
    ]
    return MMDetSettings(
        stride_in_1x1=style.stride_in_1x1,
        mean=pixels.get("mean", style.mean),
        std=pixels.get("std", style.std),
        to_rgb=pixels.get("bgr_to_rgb", pixels.get("to_rgb", style.to_rgb)),
        scale=(max(scale), min(scale)) if scale else style.scale,
        anchor_scale=scales[0],
        ratios=get(f"{anchors}.ratios", style.ratios),
        rpn_stds=get("model.rpn_head.bbox_coder.target_stds", style.rpn_stds),
        box_stds=tuple(box_stds),
        sampling_ratios=(layers[0].get("sampling_ratio", 0), layers[1].get("sampling_ratio", 0)),
        aligned=(layers[0].get("aligned", True), layers[1].get("aligned", True)),
        rpn_test=(
            rpn.get("nms_pre", 1000),
            rpn.get("max_per_img", 1000),
            rpn.get("nms", {}).get("iou_threshold", 0.7),
            rpn.get("min_bbox_size", 0),
        ),
        box_test=(
            rcnn.get("score_thr", 0.05),
            rcnn.get("max_per_img", 100),
            rcnn.get("nms", {}).get("iou_threshold", 0.5),
        ),
        drop_path_rate=get("model.backbone.drop_path_rate", style.drop_path_rate),
    )


def _get(node: Any, key: str, default: Any = None) -> Any:
    """Returns the value of a key with dots in nested dicts; `default` if it is missing or None."""
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return default if node is None else node


def _check_heads(
    cfg: Mapping[str, Any],
    kind: str,
    cascade: bool,
    stages: int,
    refuse: Callable[[str, Any, Any], InputError],
    source: str,
) -> list[Any]:
    """Returns the configs of the box heads or mask heads, one a stage; a dict applies to all stages."""
    found = _get(cfg, f"model.roi_head.{kind}", {})
    heads = found if isinstance(found, list) else [found] * stages
    if len(heads) != stages or (isinstance(found, list) and not cascade):
        raise InputError(f"{source}: its config has {len(heads)} model.roi_head.{kind}, and its weights {stages}")
    for stage, head in enumerate(heads):
        for key, expected in _FIXED_HEADS[kind].items():
            own = _get(head, key, expected)
            if own != expected:
                place = f"{kind}.{stage}" if isinstance(found, list) else kind
                raise refuse(f"model.roi_head.{place}.{key}", expected, own)
    return heads


def _find(node: Any, kind: str) -> dict[str, Any] | None:
    """Returns the first dict with that `type`, at any depth below a value."""
    if isinstance(node, dict):
        if node.get("type") == kind:
            return node
        node = list(node.values())
    found = (_find(entry, kind) for entry in node) if isinstance(node, list) else ()
    return next((entry for entry in found if entry is not None), None)
