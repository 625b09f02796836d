"""Exports for OpenCV's DNN module: the layers as ONNX files, the parameters between them as JSON, and a script that runs both.

OpenCV cannot read the whole graph of a Mask R-CNN, because the shapes of proposals, RoI features and detections depend on values. It
can read the layers, so the network is split there, and the script computes the steps between them with NumPy.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.keypoint_head import BaseKeypointRCNNHead
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.modeling.roi_heads.roi_heads import Res5ROIHeads, StandardROIHeads
from torch import Tensor, nn

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import Options
from maskrcnn_ext.interop.export.onnx import require_onnx, write_graph
from maskrcnn_ext.interop.export.recipe import Recipe
from maskrcnn_ext.interop.export.standalone import opencv_infer
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN
from maskrcnn_ext.modeling.mask_heads.base import GridMaskHead, MaskHead
from maskrcnn_ext.modeling.partial_labels import PartialROIHeads
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.modeling.rpn import FastRPN
from maskrcnn_ext.modeling.tensor_inference import class_probs


def export_opencv(model: nn.Module, recipe: Recipe, output: Path, options: Options) -> Path:
    """Writes a folder with ``model.json``, ``opencv_infer.py``, ``trunk.onnx`` and an .onnx file for each head of the model.

    Args:
        model: a GeneralizedRCNN in evaluation mode: FPN, DC5 or C4, with stock proposals, poolers and box predictor, and mask heads that
            predict one grid of logits.
        recipe: of the model.
        output: the folder; it is made if it does not exist.
        options: only ``opset`` is used.

    Returns:
        The folder.

    Raises:
        InputError: the script cannot compute a part of the model, ONNX cannot express it, or OpenCV cannot read it.
    """
    require_onnx()
    if recipe.batched:
        raise InputError("opencv takes one image a call: remove --batch")
    if recipe.image_format not in opencv_infer.IMAGE_FORMATS:
        raise InputError(f"image_format={recipe.image_format}: opencv takes {', '.join(opencv_infer.IMAGE_FORMATS)}")
    parts, parameters = _split_model(model)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot make this folder ({error.strerror})") from error
    for name, (module, inputs, outputs) in parts.items():
        file = output / f"{name}.onnx"
        _write_part(module, inputs, outputs, file, options.opset)
        try:
            opencv_infer.read_net(file)
        except opencv_infer.InputError as error:
            raise InputError(f"opset {options.opset}: {error}") from error
    described = {name: value for name, value in dataclasses.asdict(recipe).items() if name != "output_names"}
    content = {"format": opencv_infer.FORMAT, **described, **parameters}
    (output / opencv_infer.DESCRIPTION).write_text(json.dumps(content, indent=1), encoding="utf-8")
    shutil.copyfile(opencv_infer.__file__, output / "opencv_infer.py")
    return output


class _Trunk(nn.Module):
    """Computes feature maps, objectness logits and anchor deltas of an image (1, C, H, W), normalised and padded."""

    def __init__(self, model: nn.Module, features: list[str]) -> None:
        super().__init__()
        self.backbone, self.rpn_head = model.backbone, model.proposal_generator.rpn_head
        self.in_features, self.features = model.proposal_generator.in_features, features

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.backbone(image)
        logits, deltas = self.rpn_head([maps[name] for name in self.in_features])
        return [*(maps[name] for name in self.features), *logits, *deltas]


class _BoxHead(nn.Module):
    """Computes probabilities (R, K + 1), background last, and deltas (R, 4 * K or 4) of RoI features (R, C, s, s)."""

    def __init__(self, head: nn.Module, predictor: FastRCNNOutputLayers) -> None:
        super().__init__()
        self.head, self.predictor = head, predictor

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.predictor(self.head(features))
        return class_probs(self.predictor, logits), deltas


class _Layers(nn.Module):
    """Computes a head's logits of RoI features (R, C, s, s)."""

    def __init__(self, head: nn.Module, before: nn.Module) -> None:
        super().__init__()
        self.before, self.head = before, head

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head.layers(self.before(features))
        return logits


class _Mean(nn.Module):
    """Averages maps (R, C, s, s) over their pixels."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=[2, 3])


def _split_model(model: nn.Module) -> tuple[dict[str, tuple[nn.Module, Tensor, list[str]]], dict[str, Any]]:
    """Splits a model into the parts that OpenCV runs.

    Returns:
        Name of a part -> its module, an example of its input and the names of its outputs; and the parameters for ``model.json``.
    """
    _require_type("model", model, GeneralizedRCNN, CompactRCNN)
    rpn, heads = model.proposal_generator, model.roi_heads
    _require_type("model.proposal_generator", rpn, RPN, FastRPN)
    _require_type("model.proposal_generator.anchor_generator", rpn.anchor_generator, DefaultAnchorGenerator)
    _require_type("model.roi_heads", heads, StandardROIHeads, PartialROIHeads, Res5ROIHeads)
    _require_type("model.roi_heads.box_predictor", heads.box_predictor, FastRCNNOutputLayers)
    if getattr(model.backbone, "padding_constraints", {}).get("square_size"):
        raise InputError("model.backbone pads images to a square, which opencv does not support")
    shared = isinstance(heads, Res5ROIHeads)  # C4
    trunk = heads.res5 if shared else nn.Identity()
    names = {"box_head": heads.in_features if shared else heads.box_in_features}
    poolers = {"box_head": heads.pooler if shared else heads.box_pooler}
    box_head = nn.Sequential(heads.res5, _Mean()) if shared else heads.box_head
    parts = {"box_head": (_BoxHead(box_head, heads.box_predictor), ["probabilities", "deltas"])}
    for kind in ("mask", "keypoint"):
        if not getattr(heads, f"{kind}_on", False):
            continue
        head = getattr(heads, f"{kind}_head")
        _require_layers(f"model.roi_heads.{kind}_head", head)
        names[f"{kind}_head"] = names["box_head"] if shared else getattr(heads, f"{kind}_in_features")
        poolers[f"{kind}_head"] = poolers["box_head"] if shared else getattr(heads, f"{kind}_pooler")
        parts[f"{kind}_head"] = (_Layers(head, trunk), ["logits"])
    features = list(dict.fromkeys(name for levels in names.values() for name in levels))
    levels = range(len(rpn.in_features))
    outputs = [*features, *(f"objectness_{level}" for level in levels), *(f"deltas_{level}" for level in levels)]
    channels = {name: shape.channels for name, shape in model.backbone.output_shape().items()}
    example = torch.zeros((1, len(model.pixel_mean), 256, 320), device=model.device)
    files: dict[str, tuple[nn.Module, Tensor, list[str]]] = {"trunk": (_Trunk(model, features), example, outputs)}
    pooling = {}
    for part, (module, results) in parts.items():
        pooling[part] = {"features": list(names[part]), **_pooler_parameters(f"model.roi_heads, {part}", poolers[part])}
        example = torch.zeros((3, channels[names[part][0]], *pooling[part]["output_size"]), device=model.device)
        files[part] = (module, example, results)
    parameters = {
        "features": features,
        "anchors": {
            "cells": [cell.tolist() for cell in rpn.anchor_generator.cell_anchors],
            "strides": list(rpn.anchor_generator.strides),
            "offset": rpn.anchor_generator.offset,
        },
        "proposals": {
            **_box_coder_parameters(rpn.box2box_transform),
            "pre_nms": rpn.pre_nms_topk[False],
            "post_nms": rpn.post_nms_topk[False],
            "nms_threshold": rpn.nms_thresh,
            "min_size": rpn.min_box_size,
        },
        "box_coder": _box_coder_parameters(heads.box_predictor.box2box_transform),
        "poolers": pooling,
    }
    return files, parameters


def _box_coder_parameters(transform: Any) -> dict[str, Any]:
    if type(transform).__name__ != "Box2BoxTransform":  # isinstance rejects classes compiled by TorchScript
        raise InputError(f"opencv does not support {type(transform).__name__}: use Box2BoxTransform")
    return {"weights": list(transform.weights), "scale_clamp": transform.scale_clamp}


def _pooler_parameters(name: str, pooler: nn.Module | None) -> dict[str, Any]:
    _require_type(f"the pooler of {name}", pooler, ROIPooler, FastROIPooler)
    assert pooler is not None
    levels: list[Any] = list(pooler.level_poolers)
    for level in levels:
        _require_type(f"the pooler of {name}", level, ROIAlign)
    return {
        "output_size": list(pooler.output_size),
        "scales": [level.spatial_scale for level in levels],
        "sampling_ratio": levels[0].sampling_ratio,
        "aligned": levels[0].aligned,
        "canonical_box_size": pooler.canonical_box_size,
        "canonical_level": pooler.canonical_level,
        "min_level": pooler.min_level,
        "max_level": pooler.max_level,
    }


def _require_type(name: str, part: Any, *known: type) -> None:
    """Raises InputError unless a part is exactly of one of the classes; a subclass may compute something else."""
    if type(part) not in known:
        expected = " or ".join(kind.__name__ for kind in known)
        raise InputError(f"{name} is a {type(part).__name__}, which opencv does not support: use {expected}")


def _require_layers(name: str, head: nn.Module) -> None:
    """Raises InputError unless a head's result is one grid of logits, computed by its layers from pooled features."""
    if isinstance(head, MaskHead):
        plain = isinstance(head, GridMaskHead) and type(head).probs is GridMaskHead.probs and hasattr(head, "layers")
    else:
        base = next((base for base in (BaseMaskRCNNHead, BaseKeypointRCNNHead) if isinstance(head, base)), None)
        plain = base is not None and type(head).forward is base.forward
    if not plain:
        raise InputError(
            f"{name} is a {type(head).__name__}, which needs more than pooled features or returns more than one grid of logits: "
            "export to onnx instead"
        )


def _write_part(module: nn.Module, example: Tensor, outputs: list[str], file: Path, opset: int) -> None:
    """Writes one part of the model as an .onnx file that OpenCV reads correctly."""
    onnx = require_onnx()
    free = {2: "height", 3: "width"} if len(example) == 1 else {0: "rois"}
    axes = {"input": free} if len(example) == 1 else dict.fromkeys(["input", *outputs], free)
    write_graph(module.eval(), example, file, ["input"], outputs, axes, opset)
    # The exporter stores equal tensors once, with an Identity for the others. OpenCV 4.10 and 4.12 read such a bias as garbage.
    written = onnx.load(file)
    tensors = {tensor.name: tensor for tensor in written.graph.initializer}
    for node in list(written.graph.node):
        if node.op_type == "Identity" and node.input[0] in tensors:
            copy = written.graph.initializer.add()
            copy.CopyFrom(tensors[node.input[0]])
            copy.name = node.output[0]
            written.graph.node.remove(node)
    onnx.save(written, file)
