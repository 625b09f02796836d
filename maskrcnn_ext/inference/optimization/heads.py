"""The parts after the backbone of an optimized model: RPN, RoI pooler, box head and mask head."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, MaskRCNNConvUpsampleHead
from detectron2.structures import Instances
from torch import Tensor, nn

from maskrcnn_ext.compat import has_forward_hooks
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d, FusedUpsampling
from maskrcnn_ext.inference.optimization.known import only_calls_layers
from maskrcnn_ext.modeling.mask_heads.fcn import FCNMaskHead
from maskrcnn_ext.modeling.poolers.fast import FastROIPooler
from maskrcnn_ext.modeling.rpn import FastRPN
from maskrcnn_ext.ops import predictors, roi_align_cpu
from maskrcnn_ext.ops.native import loads
from maskrcnn_ext.ops.predictors import pack_predictor, predict_pixels
from maskrcnn_ext.ops.roi_align_reference import SampleGrid
from maskrcnn_ext.ops.workspace import Workspace


def make_fast_rpn(rpn: nn.Module) -> FastRPN | None:
    """Returns a FastRPN with the parts of a stock RPN, or None if `rpn` is another proposal generator.

    FastRPN selects anchors before it decodes their boxes.
    """
    if type(rpn) is FastRPN:
        return rpn
    if type(rpn) is not RPN or rpn.anchor_generator.box_dim != 4 or type(rpn.anchor_matcher) is not Matcher:
        return None
    return FastRPN(
        in_features=rpn.in_features,
        head=rpn.rpn_head,
        anchor_generator=rpn.anchor_generator,
        anchor_matcher=rpn.anchor_matcher,
        box2box_transform=rpn.box2box_transform,
        batch_size_per_image=rpn.batch_size_per_image,
        positive_fraction=rpn.positive_fraction,
        pre_nms_topk=(rpn.pre_nms_topk[True], rpn.pre_nms_topk[False]),
        post_nms_topk=(rpn.post_nms_topk[True], rpn.post_nms_topk[False]),
        nms_thresh=rpn.nms_thresh,
        min_box_size=rpn.min_box_size,
        anchor_boundary_thresh=rpn.anchor_boundary_thresh,
        loss_weight=rpn.loss_weight,
        box_reg_loss_type=rpn.box_reg_loss_type,
        smooth_l1_beta=rpn.smooth_l1_beta,
    ).eval()


class OptimizedPooler(FastROIPooler):
    """A FastROIPooler whose outputs on a CPU are in a workspace. This needs feature maps in channels-last order, float32 or bfloat16."""

    def __init__(self, pooler: ROIPooler, workspace: Workspace) -> None:
        """Builds the optimized form of a pooler that uses RoIAlign."""
        levels = list(pooler.level_poolers)
        super().__init__(
            pooler.output_size,
            [level.spatial_scale for level in levels],
            levels[0].sampling_ratio,
            "ROIAlignV2" if levels[0].aligned else "ROIAlign",
            pooler.canonical_box_size,
            pooler.canonical_level,
        )
        self.workspace = workspace

    def pool(self, x: list[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        """Pools as FastROIPooler does."""
        if not loads(roi_align_cpu.library) or not all(
            level.dtype in (torch.float32, torch.bfloat16)
            and level.device.type == "cpu"
            and level.is_contiguous(memory_format=torch.channels_last)
            for level in x
        ):
            return super().pool(x, rois, levels)
        grid = SampleGrid(
            rois, levels, self.scales, self.output_size, self.sampling_ratio, self.aligned, channels_last=True
        )
        height, width = self.output_size
        pooled = self.workspace.channels_last(len(rois), x[0].shape[1], height, width, dtype=x[0].dtype)
        return roi_align_cpu.forward(x, grid, pooled)


def make_optimized_pooler(module: nn.Module, workspace: Workspace) -> OptimizedPooler | None:
    """Returns the optimized form of a pooler that uses RoIAlign, or None for any other module, subclasses included."""
    uses_roi_align = type(module) in (ROIPooler, FastROIPooler) and all(
        type(level) is ROIAlign for level in module.level_poolers
    )
    return OptimizedPooler(module, workspace) if uses_roi_align else None


class FusedRPNHead(nn.Module):
    """A ``StandardRPNHead`` on a CPU, whose two last layers are one product that reads the hidden map once."""

    def __init__(self, head: StandardRPNHead) -> None:
        """Takes over the layers of a head for which :func:`is_fusible_rpn_head` is true."""
        super().__init__()
        self.conv = head.conv
        weights, biases = zip(
            *(layer.as_matrix() for layer in (head.objectness_logits, head.anchor_deltas)), strict=True
        )
        self.sizes = [len(bias) for bias in biases]
        self.last = pack_predictor(torch.cat([weight.T for weight in weights]), torch.cat(biases))

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps L features (N, C, H_i, W_i) to L objectness logits (N, A, H_i, W_i) and L deltas (N, 4 * A, H_i, W_i), in float32."""
        levels = [predict_pixels(self.conv(x), self.last, sum(self.sizes)).split(self.sizes, 1) for x in features]
        return [logits for logits, _ in levels], [deltas for _, deltas in levels]


def is_fusible_rpn_head(head: nn.Module) -> bool:
    """Whether :class:`FusedRPNHead` can replace a head with fused convolutions."""
    if (
        type(head) is not StandardRPNHead
        or any(map(has_forward_hooks, head.modules()))
        or not loads(predictors.library)
    ):
        return False
    return all(
        isinstance(layer, FusedConv2d) and layer.weight.device.type == "cpu" and layer.as_matrix()
        for layer in (head.objectness_logits, head.anchor_deltas)
    )


class ChannelsLastFlatten(nn.Module):
    """Flattens feature maps in the order (H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, H * W * C): a view if the map is channels-last."""
        return x.permute(0, 2, 3, 1).flatten(1)


def flatten_channels_last(head: nn.Module, pooled_size: tuple[int, int] | None) -> None:
    """Makes a box head flatten pooled maps in channels-last order, and permutes the weights of its first linear layer to match.

    Args:
        head: changed in place if it is a ``FastRCNNConvFCHead`` with fully connected layers; else left as it is.
        pooled_size: (H, W) of its input; None if unknown, and the head is left as it is.
    """
    if type(head) is not FastRCNNConvFCHead or not head.fcs or pooled_size is None:
        return
    layer = head.fcs[0]
    weight = layer.weight.data.unflatten(1, (-1, *pooled_size))
    layer.weight.data = weight.permute(0, 2, 3, 1).flatten(1).contiguous()
    head.flatten = ChannelsLastFlatten()


class SelectedClassMaskHead(nn.Module):
    """A fully convolutional mask head that computes each RoI's mask of the predicted class only, not of all classes."""

    def __init__(self, head: nn.Module) -> None:
        """Builds the head from one that :func:`select_class_head` accepts."""
        super().__init__()
        *layers, predictor = head.children()
        weight, bias = predictor.as_matrix()
        self.weight, self.bias = weight.T.contiguous(), bias
        self.upsampling: FusedUpsampling | None = None
        if isinstance(layers[-2], FusedUpsampling):
            *layers, self.upsampling, _ = layers
            self.upsampling.relu = True
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, instances: list[Instances]) -> list[Instances]:
        """Adds ``pred_masks`` (R_i, 1, S, S) to the instances, as Detectron2's heads do in inference."""
        probs = self.logits(x, torch.cat([image.pred_classes for image in instances]))[:, None].sigmoid()
        for image, masks in zip(instances, probs.split([len(image) for image in instances]), strict=True):
            image.pred_masks = masks
        return instances

    def logits(self, x: Tensor, classes: Tensor) -> Tensor:
        """Maps features (R, C, H, W) of R RoIs and their classes (R,) to mask logits (R, S, S) in float32."""
        row = classes if len(self.weight) > 1 else torch.zeros_like(classes)
        weight, bias = self.weight[row], self.bias[row]
        x = self.layers(x)
        if self.upsampling is not None:
            return self.upsampling(x, (weight, bias))[:, 0]
        pixels = x.float().permute(0, 2, 3, 1).flatten(1, 2)  # (R, S * S, C)
        return torch.baddbmm(bias[:, None, None], pixels, weight[:, :, None]).view(len(x), *x.shape[2:])


def select_class_head(head: nn.Module) -> SelectedClassMaskHead | None:
    """Returns the :class:`SelectedClassMaskHead` of a mask head with fused convolutions, or None if it is not Mask R-CNN's own."""
    if type(head) not in (MaskRCNNConvUpsampleHead, FCNMaskHead):
        return None
    predictor = head.predictor
    return SelectedClassMaskHead(head) if isinstance(predictor, FusedConv2d) and predictor.as_matrix() else None


def fuse_relus(model: nn.Module) -> None:
    """Fuses each ReLU that follows a fused layer in an ``nn.Sequential`` into that layer."""
    for sequence in [
        module for module in model.modules() if isinstance(module, nn.Sequential) and only_calls_layers(module)
    ]:
        layer: Any = None
        for name, child in list(sequence.named_children()):
            takes_relu = isinstance(getattr(layer, "relu", None), bool)  # a second ReLU changes nothing
            takes_relu = takes_relu and getattr(layer, "activation", None) is None
            if type(child) is nn.ReLU and takes_relu and not has_forward_hooks(child):
                layer.relu = True
                setattr(sequence, name, nn.Identity())
            else:
                layer = child
