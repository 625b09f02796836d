"""The head of PatchDCT: the mask of DCT-Mask, refined patch by patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.base import Features, empty_loss
from maskrcnn_ext.modeling.mask_heads.dct import DCTMaskHead
from maskrcnn_ext.modeling.mask_heads.ground_truth import target_masks
from maskrcnn_ext.modeling.mask_heads.layers import conv, predictor, roi_align, roi_align_finest
from maskrcnn_ext.ops.dct import MIXED, DCTCodec, fill_patches, from_patches, patch_kinds, to_patches

# Cells of the fine features per patch and axis: 42 x 42 features for 14 x 14 patches, as in the paper.
_CELLS = 3


class PatchPrediction(NamedTuple):
    """Outputs of both stages for R RoIs of P x P patches."""

    vectors: Tensor  # (R, num_coefficients), the whole mask
    kind_logits: Tensor  # (R, 3, P, P): background, foreground, mixed
    patch_vectors: Tensor  # (R, P, P, num_patch_coefficients), for mixed patches


def patch_loss(kind_logits: Tensor, patch_vectors: Tensor, kinds: Tensor, target_vectors: Tensor) -> Tensor:
    """Returns the cross-entropy of patch kinds plus the mean L1 distance of mixed patches' coefficients (arXiv:2302.02693, section 3.3).

    Args:
        kind_logits: (R, 3, P, P).
        patch_vectors: (R, P, P, n), predicted.
        kinds: (R, P, P) int64, the kinds of the ground-truth patches.
        target_vectors: (R, P, P, n), the DCT of the ground-truth patches.
    """
    mixed = (kinds == MIXED)[..., None]
    distance = (patch_vectors.float() - target_vectors).abs() * mixed
    count = mixed.sum() * patch_vectors.shape[-1]
    return F.cross_entropy(kind_logits.float(), kinds) + distance.sum() / count.clamp(min=1)


class PatchDCTMaskHead(DCTMaskHead):
    """A second stage after DCT-Mask (PatchDCT, ICLR 2023, arXiv:2302.02693, section 3).

    The decoded mask is cut into patches of 8 x 8 pixels. From the mask and fine features, the head classifies each patch as background,
    foreground or mixed, and predicts a short DCT vector for mixed patches. With the pyramid (``mask_pooler=null``), it pools the fine
    features from the finest level, as in the paper. With a pooler, it upsamples the RoI features.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.PatchDCTMaskHead
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
        fc_dims: Sequence[int] = (1024, 1024),
        num_coefficients: int = 300,
        output_size: int = 112,
        patch_size: int = 8,
        num_patch_coefficients: int = 6,
        coefficient_weight: float = 0.007,
        patch_weight: float = 1.0,
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds both stages, for RoI features of one size. See :class:`.base.MaskHead` for the arguments of every head.

        Args:
            conv_dims: channels of the 3 x 3 convolutions of the first stage and, last, of the second stage.
            strides: of the feature maps in pixels of the input image, finest first; used with the pyramid.
            fc_dims: outputs of the first stage's hidden fully connected layers.
            num_coefficients: length of the vector of the whole mask.
            output_size: side of the mask in pixels.
            patch_size: side of a patch in pixels, a divisor of output_size.
            num_patch_coefficients: length of the vector of a patch.
            coefficient_weight: factor of ``loss_mask``, the loss of the first stage.
            patch_weight: factor of ``loss_mask_patch``.

        Raises:
            InputError: ``patch_size`` does not divide ``output_size``.
        """
        super().__init__(
            input_shape,
            num_classes=num_classes,
            conv_dims=conv_dims,
            conv_norm=conv_norm,
            fc_dims=fc_dims,
            num_coefficients=num_coefficients,
            output_size=output_size,
            coefficient_weight=coefficient_weight,
            loss_weight=loss_weight,
            vis_period=vis_period,
        )
        if output_size % patch_size:
            raise InputError(
                f"patches of {patch_size} pixels do not fill a mask of {output_size}: "
                "set model.roi_heads.mask_head.patch_size to a divisor of its output_size"
            )
        self.strides = list(strides)
        self.patch_weight = patch_weight
        self.patch_codec = DCTCodec(patch_size, num_patch_coefficients)
        self.fine_size = output_size // patch_size * _CELLS
        dim = list(conv_dims)[-1]
        self.reduce_features = conv(input_shape.channels, dim, kernel_size=1, norm=conv_norm)
        self.embed_mask = nn.Sequential(conv(1, dim, norm=conv_norm), conv(dim, dim, kernel_size=1, norm=conv_norm))
        self.fuse = conv(dim, dim, norm=conv_norm)
        # One output a patch: the kernel covers exactly the cells of a patch.
        self.gather = conv(dim, dim, kernel_size=_CELLS, stride=_CELLS, padding=0, norm=conv_norm)
        self.kind_predictor = predictor(dim, 3)
        self.patch_predictor = predictor(dim, num_patch_coefficients)

    def predict(self, x: Features, boxes: list[Boxes]) -> PatchPrediction:
        """Runs both stages."""
        if isinstance(x, dict):
            fine = roi_align_finest(x, self.strides, boxes, self.fine_size)
            x = roi_align(x, self.strides, boxes, self.input_shape.height)
        else:
            fine = F.interpolate(x, size=self.fine_size, mode="bilinear", align_corners=False)
        vectors = super().predict(x, boxes)
        # The first stage is trained by its own loss only.
        coarse = self.decode(vectors.detach())[:, None]
        coarse = F.interpolate(coarse, size=self.fine_size, mode="bilinear", align_corners=False)
        features = self.gather(self.fuse(self.reduce_features(fine) + self.embed_mask(coarse)))
        return PatchPrediction(
            vectors, self.kind_predictor(features), self.patch_predictor(features).permute(0, 2, 3, 1)
        )

    def losses(self, prediction: PatchPrediction, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask`` of the first stage and ``loss_mask_patch`` of the second."""
        vectors, kind_logits, patch_vectors = prediction
        if len(vectors) == 0:
            return {
                "loss_mask": empty_loss(vectors),
                "loss_mask_patch": empty_loss(kind_logits) + empty_loss(patch_vectors),
            }
        targets = target_masks(instances, self.codec.size)
        self.log(self.refined(prediction).detach(), targets)
        patches = to_patches(targets.float(), self.patch_codec.size)
        with torch.autocast(vectors.device.type, enabled=False):
            target_vectors = self.patch_codec.encode(patches)
            refinement = patch_loss(kind_logits, patch_vectors, patch_kinds(patches), target_vectors)
        return {
            "loss_mask": self.coefficient_loss(vectors, targets),
            "loss_mask_patch": refinement * self.patch_weight,
        }

    def refined(self, prediction: PatchPrediction) -> Tensor:
        """Returns the mask of the second stage, (R, output_size, output_size) in [0, 1]."""
        with torch.autocast(prediction.vectors.device.type, enabled=False):
            mixed = self.patch_codec.decode(prediction.patch_vectors.float()).clamp(0, 1)
        return from_patches(fill_patches(prediction.kind_logits.argmax(1), mixed))

    def probs(self, prediction: PatchPrediction, classes: Tensor) -> Tensor:  # noqa: ARG002
        """Returns (R, 1, output_size, output_size)."""
        return self.refined(prediction)[:, None]
