"""A branch on the finest feature map that segments objects from background in the whole image, and its target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import BitMasks, Instances
from detectron2.structures.masks import polygons_to_bitmask
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.modeling.mask_heads.layers import conv, conv_stack, predictor
from maskrcnn_ext.modeling.mask_heads.losses import mean_known


def narrow_convs(in_channels: int, dim: int, *, norm: str = "") -> nn.Sequential:
    """Returns a 1 x 1 convolution to ``dim`` channels and two 3 x 3 convolutions, instead of the paper's four of full width."""
    return nn.Sequential(conv(in_channels, dim, kernel_size=1, norm=norm), conv_stack(dim, [dim, dim], norm=norm))


class SemanticBranch(nn.Module):
    """RefineMask's semantic head (arXiv:2104.08569, section 3): its output is reduced once per image and stage, before RoIAlign."""

    def __init__(self, convs: nn.Module, dim: int, stage_dims: Sequence[int]) -> None:
        """Builds the branch.

        Args:
            convs: the first layers, of any width: :func:`narrow_convs` or :func:`.layers.conv_stack`.
            dim: channels after them.
            stage_dims: channels of the features for each stage.
        """
        super().__init__()
        self.convs = convs
        self.predictor = predictor(dim, 1)
        self.reductions = nn.ModuleList([conv(dim, stage_dim, kernel_size=1) for stage_dim in stage_dims])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns logits (N, H, W) and, for each stage, a float32 map (N, stage_dim + 1, H, W) whose last channel is the mask.

        Args:
            x: (N, in_channels, H, W), N: images.
        """
        x = self.convs(x)
        logits = self.predictor(x)
        # float32: the pooler rounds boxes to the dtype of the map, and bfloat16 cannot represent 1001.
        mask = logits.float().sigmoid()
        maps = [torch.cat([reduction(x).float(), mask], dim=1) for reduction in self.reductions]
        return logits[:, 0], maps


def semantic_target(instances: list[Instances], height: int, width: int, stride: int) -> Tensor:
    """Returns the union of each image's ground-truth masks on the grid of a feature map.

    Only objects with a foreground proposal are in the instances: other objects, and the padding of an image, count as background. Several
    proposals of one object cost no memory: bit masks are united before they are resized, and each polygon is drawn once, on the small grid.

    Args:
        instances: one for each image, with ``gt_masks`` unless empty.
        height: of the feature map.
        width: of the feature map.
        stride: of the feature map, in pixels of the input image.

    Returns:
        (N, height, width), 0 or 1, float32, on the proposals' device.
    """
    device = instances[0].proposal_boxes.device
    return torch.stack([_image_target(image, height, width, stride).to(device) for image in instances])


def _image_target(image: Instances, height: int, width: int, stride: int) -> Tensor:
    if len(image) == 0:  # an image without ground truth may lack gt_masks
        return torch.zeros(height, width)
    masks = image.gt_masks
    if isinstance(masks, BitMasks):
        # amax of bytes: on a CPU, `any` is about twenty times slower.
        union = masks.tensor.view(torch.uint8).amax(0).float()
        rows, columns = union.shape
        padded = F.pad(union[None], (0, width * stride - columns, 0, height * stride - rows))
        return (F.avg_pool2d(padded, stride)[0] >= 0.5).float()
    # Proposals of one object have equal polygons in different arrays.
    polygons = {polygon.tobytes(): polygon for polygons in masks.polygons for polygon in polygons}
    drawn = polygons_to_bitmask([polygon / stride for polygon in polygons.values()], height, width)
    return torch.from_numpy(drawn).float()


def known_map_pixels(instances: list[Instances], height: int, width: int, stride: int) -> Tensor | None:
    """Returns which pixels of :func:`semantic_target` are labelled, (N, height, width) bool; None if no image has an ignore region.

    Images without a foreground proposal do not know their regions: all of their pixels count as background.
    """
    regions = [image.gt_unlabelled.region if image.has("gt_unlabelled") else None for image in instances]
    if all(region is None for region in regions):
        return None
    known = torch.ones(len(instances), height, width, dtype=torch.bool, device=instances[0].proposal_boxes.device)
    for of_image, region in zip(known, regions, strict=True):
        if region is not None:
            rows, columns = region.mask.shape
            padded = F.pad(region.mask[None].float(), (0, width * stride - columns, 0, height * stride - rows))
            of_image &= F.avg_pool2d(padded, stride)[0] < 0.5
    return known


def semantic_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Returns the mean binary cross-entropy over the pixels of all images, for (N, H, W) tensors (arXiv:2104.08569, section 3).

    Pixels where the boolean ``known`` is False are left out.
    """
    return mean_known(F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none"), known)
