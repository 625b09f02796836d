"""Maps each layer of Keras's Mask R-CNN (Matterport) to Detectron2's, and converts its weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from maskrcnn_ext.interop.weights.conversion import Conversion

# The epsilons of Keras's BatchNormalization and of Detectron2's FrozenBatchNorm2d, which cannot be set.
_EPSILON, _FROZEN_EPSILON = 1e-3, 1e-5
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_BRANCHES = {"2a": "conv1", "2b": "conv2", "2c": "conv3"}
# Number of blocks in res2 to res5.
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
_PYRAMID = range(2, 6)
_MASK_CONVS = range(1, 5)


def layer_names(backbone: str) -> set[str]:
    """Returns the names of all layers with weights."""
    names = {
        "conv1",
        "bn_conv1",
        "rpn_conv_shared",
        "rpn_class_raw",
        "rpn_bbox_pred",
        "mrcnn_mask_deconv",
        "mrcnn_mask",
    }
    names |= {f"{kind}{layer}" for layer, _ in _block_layers(backbone) for kind in ("res", "bn")}
    names |= {name for level in _PYRAMID for name in (f"fpn_c{level}p{level}", f"fpn_p{level}")}
    names |= {f"mrcnn_class_{kind}{number}" for kind in ("conv", "bn") for number in (1, 2)}
    names |= {f"mrcnn_mask_{kind}{number}" for kind in ("conv", "bn") for number in _MASK_CONVS}
    return names | {"mrcnn_class_logits", "mrcnn_bbox_fc"}


def map_layers(conversion: Conversion, backbone: str) -> None:
    """Converts the weights of every layer.

    Args:
        conversion: of the file's tensors, whose keys are ``layer/weight``.
        backbone: "resnet50" or "resnet101".
    """
    _normed(conversion, "backbone.bottom_up.stem.conv1", "conv1", "bn_conv1")
    for layer, conv in _block_layers(backbone):
        _normed(conversion, f"backbone.bottom_up.{conv}", f"res{layer}", f"bn{layer}")
    for level in _PYRAMID:
        _conv(conversion, f"backbone.fpn_lateral{level}", f"fpn_c{level}p{level}")
        _conv(conversion, f"backbone.fpn_output{level}", f"fpn_p{level}")
    rpn = "proposal_generator.rpn_head"
    _conv(conversion, f"{rpn}.conv", "rpn_conv_shared")
    for part in ("kernel", "bias"):
        name = "weight" if part == "kernel" else "bias"
        conversion.put(f"{rpn}.objectness_logits.{name}", f"rpn_class_raw/{part}", make=_objectness)
        conversion.put(f"{rpn}.anchor_deltas.{name}", f"rpn_bbox_pred/{part}", make=_anchor_deltas)
    heads = "roi_heads"
    for number in (1, 2):
        _folded(
            conversion,
            f"{heads}.box_head.fc{number}",
            f"mrcnn_class_conv{number}",
            f"mrcnn_class_bn{number}",
            flat=True,
        )
    for part in ("kernel", "bias"):
        name = "weight" if part == "kernel" else "bias"
        conversion.put(f"{heads}.box_predictor.cls_score.{name}", f"mrcnn_class_logits/{part}", make=_background_last)
        conversion.put(f"{heads}.box_predictor.bbox_pred.{name}", f"mrcnn_bbox_fc/{part}", make=_class_deltas)
        conversion.put(
            f"{heads}.mask_head.predictor.{name}", f"mrcnn_mask/{part}", make=lambda x: _outputs_first(x)[1:]
        )
    for number in _MASK_CONVS:
        _folded(conversion, f"{heads}.mask_head.mask_fcn{number}", f"mrcnn_mask_conv{number}", f"mrcnn_mask_bn{number}")
    # (height, width, outputs, inputs): those of torch's transposed convolution in another order.
    _conv(conversion, f"{heads}.mask_head.deconv", "mrcnn_mask_deconv")


def _block_layers(backbone: str) -> Iterator[tuple[str, str]]:
    """Yields the layers of the residual blocks: Keras's name after ``res`` or ``bn``, and Detectron2's name."""
    for stage, blocks in enumerate(BLOCKS[backbone], 2):
        for block in range(blocks):
            branches = {**_BRANCHES, **({"1": "shortcut"} if block == 0 else {})}
            for branch, conv in branches.items():
                yield f"{stage}{chr(ord('a') + block)}_branch{branch}", f"res{stage}.{block}.{conv}"


def _conv(conversion: Conversion, name: str, layer: str) -> None:
    """Maps a convolution with a bias."""
    conversion.put(f"{name}.weight", f"{layer}/kernel", make=_outputs_first)
    conversion.put(f"{name}.bias", f"{layer}/bias")


def _normed(conversion: Conversion, name: str, layer: str, norm: str) -> None:
    """Maps a convolution and its norm. Detectron2's convolution has no bias, so it is subtracted from the norm's mean."""
    conversion.put(f"{name}.weight", f"{layer}/kernel", make=_outputs_first)
    conversion.put(f"{name}.norm.weight", f"{norm}/gamma")
    conversion.put(f"{name}.norm.bias", f"{norm}/beta")
    conversion.put(f"{name}.norm.running_mean", f"{norm}/moving_mean", f"{layer}/bias", make=torch.sub)
    conversion.put(
        f"{name}.norm.running_var", f"{norm}/moving_variance", make=lambda x: x + (_EPSILON - _FROZEN_EPSILON)
    )


def _folded(conversion: Conversion, name: str, layer: str, norm: str, *, flat: bool = False) -> None:
    """Folds a norm into its convolution; `flat` makes a fully connected layer of a convolution that covers its whole input."""
    gamma, beta, mean, variance = (f"{norm}/{part}" for part in _NORM)
    conversion.put(f"{name}.weight", f"{layer}/kernel", gamma, variance, make=partial(_folded_weight, flat=flat))
    conversion.put(f"{name}.bias", f"{layer}/bias", gamma, beta, mean, variance, make=_folded_bias)


def _folded_weight(kernel: Tensor, gamma: Tensor, variance: Tensor, *, flat: bool) -> Tensor:
    weight = _outputs_first(kernel).double() * _factor(gamma, variance).view(-1, 1, 1, 1)
    return (weight.flatten(1) if flat else weight).to(kernel.dtype)


def _folded_bias(bias: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return ((bias.double() - mean) * _factor(gamma, variance) + beta).to(bias.dtype)


def _factor(gamma: Tensor, variance: Tensor) -> Tensor:
    return gamma.double() / (variance.double() + _EPSILON).sqrt()


def _outputs_first(kernel: Tensor) -> Tensor:
    """Moves the outputs of (height, width, inputs, outputs), (inputs, outputs) or (outputs) to the front, the pixels to the end."""
    return kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.movedim(-1, 0)


def _objectness(kernel: Tensor) -> Tensor:
    """Returns one logit per anchor whose sigmoid is the softmax's probability of an object; Keras has a logit for the background, too."""
    background, foreground = _outputs_first(kernel).unflatten(0, (-1, 2)).unbind(1)
    return foreground - background


def _anchor_deltas(kernel: Tensor) -> Tensor:
    """Reorders (dy, dx, dh, dw) of every anchor to (dx, dy, dw, dh)."""
    return _outputs_first(kernel).unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)


def _background_last(kernel: Tensor) -> Tensor:
    """Moves the background from the first class to the last."""
    return _outputs_first(kernel).roll(-1, 0)


def _class_deltas(kernel: Tensor) -> Tensor:
    """Reorders the deltas of every class as `_anchor_deltas` does, and drops those of the background."""
    return _anchor_deltas(kernel)[4:]
