"""Shared by both PointRend heads: features, labels and loss at points, the MLPs that classify points, and subdivision.

Coordinates of points are (x, y) relative to the box of a RoI, in [0, 1], float32. R: RoIs of all images in the batch, P: points of a
RoI. Layers have the names of Detectron2's ``projects/point_rend``, so that its checkpoints load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import ShapeSpec
from detectron2.projects.point_rend.mask_head import ConvFCHead
from detectron2.projects.point_rend.point_features import (
    generate_regular_grid_point_coords,
    get_point_coords_wrt_image,
    get_uncertain_point_coords_on_grid,
    point_sample,
    point_sample_fine_grained_features,
    sample_point_labels,
)
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.ground_truth import classes_of, select_class
from maskrcnn_ext.modeling.mask_heads.losses import mean_known
from maskrcnn_ext.modeling.mask_heads.weak_losses import proposal_points

# Side in pixels of the masks that polygons are drawn into: the resolution of the predicted masks.
_CROP_SIZE = 224
# Random frequencies of the positional encoding; each contributes a sine and a cosine.
_FREQUENCIES = 128


def finest_maps(features: dict[str, Tensor], num_levels: int) -> list[Tensor]:
    """Returns the first ``num_levels`` feature maps, (N, C, H_l, W_l) each."""
    return list(features.values())[:num_levels]


def point_features(maps: list[Tensor], strides: Sequence[int], boxes: list[Boxes], coords: Tensor) -> Tensor:
    """Returns the features of all maps at points, interpolated bilinearly and concatenated.

    Args:
        maps: L feature maps (N, C, H_l, W_l).
        strides: of the maps in pixels of the input image, finest first; further strides are not used.
        boxes: one ``Boxes`` for each image, in pixels of the input image.
        coords: (R, P, 2).

    Returns:
        (R, L * C, P)
    """
    scales = [1 / stride for stride, _ in zip(strides, maps, strict=False)]
    sampled: Tensor = point_sample_fine_grained_features(maps, scales, boxes, coords)[0]
    return sampled


def grid_coords(count: int, size: int, device: torch.device) -> Tensor:
    """Returns (count, size * size, 2): the cell centres of a size x size grid over each box, row by row."""
    # In bfloat16 the points would be off by up to half a pixel of the final mask.
    with torch.autocast(device.type, enabled=False):
        coords: Tensor = generate_regular_grid_point_coords(count, size, device)
    return coords


def grid_features(maps: list[Tensor], strides: Sequence[int], boxes: list[Boxes], size: int) -> Tensor:
    """Returns :func:`point_features` on a regular grid, (R, L * C, size, size): RoIAlign with one sample a cell."""
    count = sum(per_image.tensor.shape[0] for per_image in boxes)
    sampled = point_features(maps, strides, boxes, grid_coords(count, size, maps[0].device))
    return sampled.unflatten(2, (size, size))


def point_labels(instances: list[Instances], coords: Tensor) -> Tensor:
    """Returns the ground truth at points, interpolated bilinearly between pixels.

    Bit masks are sampled in the image, as in Detectron2. Polygons, which Detectron2 does not support here, are first drawn on a fine grid
    over the proposal: a bit mask of the whole image for each object would be many times as large.

    Args:
        instances: with ``gt_masks`` (BitMasks or PolygonMasks) and ``proposal_boxes``, one for each image.
        coords: (R, P, 2).

    Returns:
        (R, P) float32 in [0, 1].
    """
    labels = [coords.new_zeros(0, coords.shape[1])]
    for image, points in zip(instances, coords.split([len(image) for image in instances]), strict=True):
        if len(image) == 0:
            continue
        boxes = image.proposal_boxes.tensor
        if isinstance(image.gt_masks, BitMasks):
            labels.append(sample_point_labels([image], get_point_coords_wrt_image(boxes, points)))
        else:
            crops = image.gt_masks.crop_and_resize(boxes, _CROP_SIZE).to(coords)
            labels.append(point_sample(crops[:, None], points, align_corners=False)[:, 0])
    return torch.cat(labels)


def known_points(instances: list[Instances], coords: Tensor) -> Tensor | None:
    """Returns which points ``coords`` (R, P, 2) are in no ignore region, (R, P) bool; None if no image has a region."""
    regions = [image.gt_unlabelled.region if image.has("gt_unlabelled") else None for image in instances]
    if all(region is None for region in regions):
        return None
    known = torch.ones(coords.shape[:2], dtype=torch.bool, device=coords.device)
    sizes = [len(image) for image in instances]
    for image, region, points, of_image in zip(
        instances, regions, coords.split(sizes), known.split(sizes), strict=True
    ):
        if region is not None and len(points):
            of_image &= ~region.contains(get_point_coords_wrt_image(image.proposal_boxes.tensor, points))
    return known


def point_loss(logits: Tensor, labels: Tensor, known: Tensor | None = None) -> Tensor:
    """Returns the mean binary cross-entropy of the points (arXiv:1912.08193, section 4) and writes the scalar ``point/accuracy``.

    Args:
        logits: (R, P) of each RoI's class, R > 0.
        labels: (R, P) in [0, 1].
        known: (R, P) bool, the points that count; None for all.
    """
    correct = (logits > 0) == (labels > 0.5)
    get_event_storage().put_scalar("point/accuracy", mean_known(correct.float(), known).item())
    return mean_known(F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none"), known)


def supervised_point_loss(head: Any, prediction: Any, instances: list[Instances]) -> Tensor:
    """Returns :func:`point_loss` at the labelled points of the objects (PointSup, arXiv:2104.06404), instead of points of their masks.

    Args:
        head: with ``point_logits(prediction, coords)``.
        prediction: of the head.
        instances: see :func:`.weak_losses.proposal_points`.
    """
    coords, labels = proposal_points(instances)
    logits = head.point_logits(prediction, coords)
    if len(logits) == 0:
        return logits.sum() * 0
    return point_loss(select_class(logits, classes_of(instances)), labels.clamp(min=0), labels >= 0)


def subdivide(
    logits_at: Callable[[Tensor], Tensor], count: int, *, size: int, steps: int, num_points: int, device: torch.device
) -> Tensor:
    """Returns masks by adaptive subdivision (arXiv:1912.08193, section 3.1).

    Each step doubles the resolution of a coarse mask and predicts its least certain pixels again. Only the logits of each RoI's class are
    kept: at 224 x 224, those of all 80 COCO classes take 16 MB a RoI.

    Args:
        logits_at: maps coords (count, P, 2) to the logits (count, P) of each RoI's class.
        count: R.
        size: side of the mask before the first step in pixels.
        steps: how often the side doubles.
        num_points: P, the pixels that each step predicts again.
        device: of the points.

    Returns:
        (count, S, S) float32 logits, S = size * 2 ** steps.
    """
    logits = logits_at(grid_coords(count, size, device)).float().unflatten(1, (1, size, size))
    for _ in range(steps):
        logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        indices, coords = get_uncertain_point_coords_on_grid(-logits.abs(), num_points)
        updated = logits.flatten(2).scatter(2, indices[:, None], logits_at(coords).float()[:, None])
        logits = updated.view_as(logits)
    return logits[:, 0]


def roi_head(in_shape: ShapeSpec, conv_dim: int, *, fc_dims: list[int], output_shape: tuple[int, ...]) -> ConvFCHead:
    """Returns a convolution that halves RoI features, and fully connected layers (arXiv:1912.08193, section 4).

    Args:
        in_shape: channels, height and width of the RoI features.
        conv_dim: channels to which the features are reduced if they have more.
        fc_dims: outputs of the hidden fully connected layers.
        output_shape: of the output for a RoI.

    Raises:
        InputError: the features are not square, or their side is odd and cannot be halved.
    """
    if in_shape.height != in_shape.width or in_shape.height % 2:
        raise InputError(
            f"PointRend takes the feature maps and pools them to a square with an even side, not to {in_shape.height} x {in_shape.width}: "
            "set model.roi_heads.mask_head.input_shape.height=14 model.roi_heads.mask_head.input_shape.width=14 "
            "(C4's Res5ROIHeads passes on no feature maps: choose another head there)"
        )
    # ConvFCHead reduces to conv_dim even if the features have fewer channels.
    dim = min(conv_dim, in_shape.channels)
    return ConvFCHead(in_shape, conv_dim=dim, fc_dims=fc_dims, output_shape=output_shape)


def check_num_levels(num_levels: int, strides: Sequence[int]) -> int:
    """Returns ``num_levels``; raises InputError if there are fewer feature maps."""
    if not 1 <= num_levels <= len(strides):
        raise InputError(
            f"num_levels={num_levels}: the head takes {len(strides)} feature maps, of strides {list(strides)}; "
            f"set model.roi_heads.mask_head.num_levels to a number from 1 to {len(strides)}"
        )
    return num_levels


class PointMLP(nn.Module):
    """Classifies points from fine features and coarse logits, which every layer takes (arXiv:1912.08193, section 3.2)."""

    def __init__(self, in_channels: int, num_classes: int, *, fc_dim: int, num_fc: int) -> None:
        """Builds the layers, convolutions of size 1 over the points.

        Args:
            in_channels: channels of the fine features.
            num_classes: classes of the coarse logits and of the output.
            fc_dim: outputs of a hidden layer.
            num_fc: hidden layers.
        """
        super().__init__()
        self.num_fc = num_fc
        for index in range(num_fc):
            layer = nn.Conv1d((fc_dim if index else in_channels) + num_classes, fc_dim, 1)
            weight_init.c2_msra_fill(layer)
            self.add_module(f"fc{index + 1}", layer)
        self.predictor = nn.Conv1d((fc_dim if num_fc else in_channels) + num_classes, num_classes, 1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Returns (R, num_classes, P) logits from fine features (R, in_channels, P) and coarse logits (R, num_classes, P)."""
        x = fine
        for index in range(self.num_fc):
            x = self.get_submodule(f"fc{index + 1}")(torch.cat([x, coarse], dim=1)).relu()
        logits: Tensor = self.predictor(torch.cat([x, coarse], dim=1))
        return logits


class DynamicPointMLP(nn.Module):
    """Classifies points from fine features and position, with one set of parameters per RoI (Implicit PointRend, arXiv:2104.06404)."""

    def __init__(self, in_channels: int, num_classes: int, *, fc_dim: int, num_fc: int) -> None:
        """Draws the frequencies of the positional encoding and counts the parameters, which are an input of :meth:`forward`.

        Args:
            in_channels: channels of the fine features.
            num_classes: classes of the output.
            fc_dim: outputs of a hidden layer.
            num_fc: hidden layers.
        """
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, _FREQUENCIES))
        dims = [in_channels + 2 * _FREQUENCIES, *[fc_dim] * num_fc, num_classes]
        # (outputs, inputs) of every layer.
        self.shapes = list(zip(dims[1:], dims[:-1], strict=True))
        # All weights, then all biases.
        self.sizes = [rows * columns for rows, columns in self.shapes] + [rows for rows, _ in self.shapes]
        self.num_params = sum(self.sizes)

    def encode(self, coords: Tensor) -> Tensor:
        """Returns (R, 256, P), sines and cosines of random projections of ``coords`` (R, P, 2) (arXiv:2006.10739)."""
        # bfloat16 cannot represent the fraction of a phase of several turns.
        with torch.autocast(coords.device.type, enabled=False):
            phases = 2 * math.pi * ((2 * coords - 1) @ self.positional_encoding_gaussian_matrix)
            return torch.cat([phases.sin(), phases.cos()], dim=2).transpose(1, 2)

    def forward(self, fine: Tensor, coords: Tensor, parameters: Tensor) -> Tensor:
        """Runs the MLP of each RoI on its points.

        Args:
            fine: (R, in_channels, P).
            coords: (R, P, 2).
            parameters: (R, num_params).

        Returns:
            (R, num_classes, P) logits.
        """
        x = torch.cat([self.encode(coords), fine], dim=1)
        layers = parameters.split(self.sizes, dim=1)
        weights, biases = layers[: len(self.shapes)], layers[len(self.shapes) :]
        for index, (shape, weight, bias) in enumerate(zip(self.shapes, weights, biases, strict=True)):
            x = torch.einsum("rcp,rdc->rdp", x.relu() if index else x, weight.unflatten(1, shape)) + bias[..., None]
        return x
