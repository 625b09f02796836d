"""The head of BMask R-CNN: a boundary branch beside the mask branch, with features exchanged in both directions."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.modeling.mask_heads.base import Features, GridMaskHead, empty_loss
from maskrcnn_ext.modeling.mask_heads.ground_truth import classes_of, known_pixels, select_class, target_masks
from maskrcnn_ext.modeling.mask_heads.layers import conv, conv_stack, deconv, predictor, roi_align, roi_align_finest
from maskrcnn_ext.modeling.mask_heads.losses import bce_loss, dice_loss
from maskrcnn_ext.ops.boundary import mask_boundary


def boundary_loss(
    logits: Tensor,
    boundaries: Tensor,
    known: Tensor | None = None,
    *,
    bce_weight: float = 1.0,
    squared_dice: bool = True,
) -> Tensor:
    """Dice plus weighted binary cross-entropy (BMask R-CNN, arXiv:2007.08921, equations 1 and 2).

    Args:
        logits: (R, S, S) of the boundary, R > 0.
        boundaries: (R, S, S), 0 or 1.
        known: (R, S, S) bool; None if all pixels count.
        bce_weight: lambda of the paper, 1 there.
        squared_dice: whether the denominator of dice has squares: yes in the paper, no in its authors' code.
    """
    logits, boundaries = logits.float(), boundaries.float()
    dice = dice_loss(logits, boundaries, known, squared=squared_dice)
    return dice + bce_weight * bce_loss(logits, boundaries, known)


class BoundaryMaskHead(GridMaskHead):
    """Boundary-preserving mask head (BMask R-CNN, ECCV 2020, arXiv:2007.08921, section 3).

    Mask features are fused into the boundary branch, and boundary features back into the mask branch. Both predict at twice the size of
    the RoI features. With the pyramid (``mask_pooler=null``), the head pools 14 x 14 as usual, and 28 x 28 from the finest level for the
    boundary, as in the paper. With a pooler, it upsamples the RoI features instead; the parameters are the same.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.BoundaryMaskHead model.roi_heads.mask_pooler=null
    """

    takes_pyramid = True

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        strides: Sequence[int] = (4, 8, 16, 32),
        boundary_loss_weight: float = 1.0,
        squared_dice: bool = True,
        mask_loss: str = "bce",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers. See :class:`.base.MaskHead` for the arguments of every head.

        Args:
            conv_dims: channels of the mask branch's 3 x 3 convolutions and, last, of everything after them.
            strides: of the feature maps in pixels of the input image, finest first; used with the pyramid.
            boundary_loss_weight: factor of ``loss_mask_boundary``.
            squared_dice: see :func:`boundary_loss`; False is the authors' code.
        """
        super().__init__(
            input_shape, num_classes=num_classes, mask_loss=mask_loss, loss_weight=loss_weight, vis_period=vis_period
        )
        self.strides = list(strides)
        self.boundary_loss_weight = boundary_loss_weight
        self.squared_dice = squared_dice
        channels, dims = input_shape.channels, list(conv_dims)
        dim = dims[-1]
        mask_dim = dims[-2] if len(dims) > 1 else channels
        self.mask_fcn = conv_stack(channels, dims[:-1], norm=conv_norm)
        self.downsample = conv(channels, dim, stride=2, norm=conv_norm)
        self.mask_to_boundary = conv(mask_dim, dim, kernel_size=1, norm=conv_norm)
        self.boundary_fcn = conv_stack(dim, [dim, dim], norm=conv_norm)
        self.boundary_to_mask = conv(dim, mask_dim, kernel_size=1, norm=conv_norm)
        self.mask_fusion = conv(mask_dim, dim, norm=conv_norm)
        self.mask_predictor = nn.Sequential(deconv(dim, dim), predictor(dim, num_classes))
        self.boundary_predictor = nn.Sequential(deconv(dim, dim), predictor(dim, num_classes))

    def predict(self, x: Features, boxes: list[Boxes]) -> tuple[Tensor, Tensor]:
        """Returns mask and boundary logits, (R, num_classes, 2 H, 2 W) each."""
        if isinstance(x, dict):
            size = self.input_shape.height
            fine = roi_align_finest(x, self.strides, boxes, 2 * size)
            x = roi_align(x, self.strides, boxes, size)
        else:
            fine = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        mask = self.mask_fcn(x)
        boundary = self.boundary_fcn(self.downsample(fine) + self.mask_to_boundary(mask))
        mask = self.mask_fusion(mask + self.boundary_to_mask(boundary))
        return self.mask_predictor(mask), self.boundary_predictor(boundary)

    def losses(self, prediction: tuple[Tensor, Tensor], instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask`` and ``loss_mask_boundary``."""
        mask_logits, boundary_logits = prediction
        losses = {"loss_mask": self.grid_loss(mask_logits, instances)}
        if len(boundary_logits) == 0:
            return {**losses, "loss_mask_boundary": empty_loss(boundary_logits)}
        size = boundary_logits.shape[-1]
        boundaries, known = mask_boundary(target_masks(instances, size)), known_pixels(instances, size)
        if known is not None:  # beside unlabelled pixels, a pixel may be at the boundary or not
            known = F.max_pool2d((~known).float()[:, None], 3, stride=1, padding=1)[:, 0] == 0
        logits = select_class(boundary_logits, classes_of(instances))
        loss = boundary_loss(logits, boundaries, known, squared_dice=self.squared_dice)
        return {**losses, "loss_mask_boundary": loss * self.boundary_loss_weight}

    def probs(self, prediction: tuple[Tensor, Tensor], classes: Tensor) -> Tensor:
        """Returns (R, 1, 2 H, 2 W)."""
        return super().probs(prediction[0], classes)
