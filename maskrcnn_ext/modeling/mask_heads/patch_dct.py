"""The head of PatchDCT: the mask of DCT-Mask, refined patch by patch."""

from __future__ import annotations

import warnings
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
from maskrcnn_ext.modeling.mask_heads.dct import DISTANCES, DCTMaskHead
from maskrcnn_ext.modeling.mask_heads.ground_truth import classes_of, known_pixels, select_class, target_masks
from maskrcnn_ext.modeling.mask_heads.layers import conv, conv_stack, roi_align, roi_align_finest
from maskrcnn_ext.modeling.mask_heads.losses import mean_known
from maskrcnn_ext.ops.dct import MIXED, DCTCodec, fill_patches, from_patches, patch_kinds, to_patches

# Cells of the fine features per patch and axis: 42 x 42 features for 14 x 14 patches, as in the paper.
_CELLS = 3
_NUM_KINDS = 3


class PatchDCTPrediction(NamedTuple):
    """Inputs of the refinement, except the classes of R RoIs."""

    vectors: Tensor  # (R, num_coefficients), the whole mask
    fine: Tensor  # (R, C, F, F), F: cells of all patches along an axis


class PatchStage(NamedTuple):
    """Outputs of one stage of refinement for R RoIs of P x P patches."""

    kind_logits: Tensor  # (R, 3, P, P): background, foreground, mixed
    vectors: Tensor  # (R, P, P, num_patch_coefficients), for mixed patches


def patch_loss(
    kind_logits: Tensor,
    patch_vectors: Tensor,
    kinds: Tensor,
    target_vectors: Tensor,
    distance: str = "l1",
    known: Tensor | None = None,
) -> Tensor:
    """Returns the cross-entropy of patch kinds plus the mean distance of mixed patches' coefficients (arXiv:2302.02693, section 3.3).

    Args:
        kind_logits: (R, 3, P, P).
        patch_vectors: (R, P, P, n), predicted.
        kinds: (R, P, P) int64, the kinds of the ground-truth patches.
        target_vectors: (R, P, P, n), the DCT of the ground-truth patches.
        distance: a key of :data:`.dct.DISTANCES`. Without a mixed patch, the distance is zero.
        known: (R, P, P) bool, the patches that count; None for all.
    """
    is_mixed = kinds == MIXED
    mixed = (is_mixed if known is None else is_mixed & known)[..., None]
    distances = DISTANCES[distance](patch_vectors.float(), target_vectors, reduction="none") * mixed
    count = mixed.sum() * patch_vectors.shape[-1]
    kind_losses = F.cross_entropy(kind_logits.float(), kinds, reduction="none")
    return mean_known(kind_losses, known) + distances.sum() / count.clamp(min=1)


def confident_kinds(kind_logits: Tensor, threshold: float) -> Tensor:
    """Returns (R, P, P) int64: the likelier of background and foreground if its probability exceeds ``threshold``, else the likeliest kind.

    Args:
        kind_logits: (R, 3, P, P).
        threshold: 1 always takes the likeliest kind.
    """
    probs = kind_logits.float().softmax(1)
    uniform = probs[:, :MIXED]
    return torch.cat([uniform + (uniform > threshold), probs[:, MIXED:]], dim=1).argmax(1)


class PatchDCTMaskHead(DCTMaskHead):
    """Stages of refinement after DCT-Mask (PatchDCT, ICLR 2023, arXiv:2302.02693, section 3).

    The decoded mask is cut into patches of 8 x 8 pixels. From the mask and fine features, a stage classifies each patch as background,
    foreground or mixed, and predicts a short DCT vector for mixed patches, both for each class. With the pyramid
    (``mask_pooler=null``), the head pools the fine features from the finest level, as in the paper. With a pooler, it upsamples the RoI
    features. Several stages share their layers; each refines the mask of the RoI's class (the ground truth in training), which the stage
    before it predicted. Therefore the stages run in :meth:`losses` and :meth:`probs`, where the classes are known.

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.PatchDCTMaskHead model.roi_heads.mask_pooler=null
        model.roi_heads.mask_head.stage_weights=[0.5,0.5,0.8]  # two stages of refinement, with the authors' weights
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
        patch_dim: int = 1024,
        patch_threshold: float = 0.3,
        stage_weights: Sequence[float] = (1.0, 1.0),
        distance: str = "l1",
        coefficient_weight: float | None = None,
        patch_weight: float | None = None,
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers, for RoI features of one size. See :class:`.base.MaskHead` for the arguments of every head.

        All layers but the first convolutions keep PyTorch's default initialisation, as the authors' do.

        Args:
            conv_dims: channels of the 3 x 3 convolutions of the first stage and, last, of the two that fuse fine features and mask.
            strides: of the feature maps in pixels of the input image, finest first; used with the pyramid.
            fc_dims: outputs of the first stage's hidden fully connected layers.
            num_coefficients: length of the vector of the whole mask.
            output_size: side of the mask in pixels.
            patch_size: side of a patch in pixels, a divisor of output_size.
            num_patch_coefficients: length of the vector of a patch.
            patch_dim: channels of the two convolutions with one cell a patch; a smaller number makes the head light.
            patch_threshold: probability above which a patch is background or foreground in inference, even if mixed is likelier; 1 takes
                the likeliest kind.
            stage_weights: factors of the losses: of DCT-Mask's, then of each stage of refinement. Their number sets the number of stages.
            distance: of a coefficient to its target: "l1" as in the paper, "smooth_l1" (beta 1) or "l2". The loss is its mean.
            coefficient_weight: deprecated, use the first of ``stage_weights``, which multiplies the mean distance instead of the sum.
            patch_weight: deprecated, use the second of ``stage_weights``.

        Raises:
            InputError: ``patch_size`` does not divide ``output_size``, less than two ``stage_weights``, or an unknown ``distance``.
        """
        super().__init__(
            input_shape,
            num_classes=num_classes,
            conv_dims=conv_dims,
            conv_norm=conv_norm,
            fc_dims=fc_dims,
            num_coefficients=num_coefficients,
            output_size=output_size,
            distance=distance,
            loss_weight=loss_weight,
            vis_period=vis_period,
        )
        if output_size % patch_size:
            raise InputError(
                f"patches of {patch_size} pixels do not fill a mask of {output_size}: "
                "set model.roi_heads.mask_head.patch_size to a divisor of its output_size"
            )
        if len(stage_weights) < 2:
            raise InputError(
                f"PatchDCTMaskHead needs the weights of two or more stages, not stage_weights={list(stage_weights)}: set "
                "model.roi_heads.mask_head.stage_weights=[1.0,1.0], or use DCTMaskHead"
            )
        self.strides = list(strides)
        self.stage_weights = _with_deprecated(stage_weights, coefficient_weight, patch_weight, num_coefficients)
        # The distance is averaged over the coefficients.
        self.coefficient_weight = self.stage_weights[0] / num_coefficients
        self.patch_threshold = patch_threshold
        self.patch_codec = DCTCodec(patch_size, num_patch_coefficients)
        self.fine_size = output_size // patch_size * _CELLS
        channels, dim = input_shape.channels, list(conv_dims)[-1]
        self.embed_mask = conv(1, channels)
        self.fuse = conv_stack(channels, [dim, dim], norm=conv_norm)
        self.gather = nn.Sequential(
            # One output a patch: the kernel covers exactly the cells of a patch.
            conv(dim, patch_dim, kernel_size=_CELLS, stride=_CELLS, padding=0, norm=conv_norm),
            conv(patch_dim, patch_dim, norm=conv_norm),
        )
        self.kind_predictor = nn.Conv2d(patch_dim, num_classes * _NUM_KINDS, 1)
        self.patch_predictor = nn.Conv2d(patch_dim, num_classes * num_patch_coefficients, 1)
        for part in (self.fcs, self.predictor, self.embed_mask, self.fuse, self.gather):
            _initialise_as_pytorch(part)

    def predict(self, x: Features, boxes: list[Boxes]) -> PatchDCTPrediction:
        """Runs the first stage and pools the fine features."""
        if isinstance(x, dict):
            fine = roi_align_finest(x, self.strides, boxes, self.fine_size)
            x = roi_align(x, self.strides, boxes, self.input_shape.height)
        else:
            fine = F.interpolate(x, size=self.fine_size, mode="bilinear", align_corners=False)
        return PatchDCTPrediction(super().predict(x, boxes), fine)

    def refine(self, prediction: PatchDCTPrediction, classes: Tensor) -> list[PatchStage]:
        """Runs the stages of refinement.

        Args:
            prediction: returned by :meth:`predict`.
            classes: (R,) int64.

        Returns:
            The outputs of each stage, for the class of each RoI.
        """
        mask = _decode(self.codec, prediction.vectors)
        stages = [self.refine_once(mask, prediction.fine, classes)]
        while len(stages) < len(self.stage_weights) - 1:
            kind_logits, vectors = stages[-1]
            mask = from_patches(fill_patches(kind_logits.argmax(1), _decode(self.patch_codec, vectors)))
            stages.append(self.refine_once(mask, prediction.fine, classes))
        return stages

    def refine_once(self, mask: Tensor, fine: Tensor, classes: Tensor) -> PatchStage:
        """Runs one stage.

        Args:
            mask: (R, output_size, output_size) of the stage before.
            fine: (R, C, F, F).
            classes: (R,) int64.
        """
        # Nearest, as the authors' code samples the mask.
        mask = F.interpolate(mask[:, None], size=self.fine_size, mode="nearest").to(fine.dtype)
        features = self.gather(self.fuse(self.embed_mask(mask) + fine))
        kind_logits = self.kind_predictor(features).unflatten(1, (self.num_classes, -1))
        vectors = self.patch_predictor(features).unflatten(1, (self.num_classes, -1))
        return PatchStage(select_class(kind_logits, classes), select_class(vectors, classes).permute(0, 2, 3, 1))

    def losses(self, prediction: PatchDCTPrediction, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask`` of the first stage and ``loss_mask_patch``, the weighted sum over the stages of refinement."""
        stages = self.refine(prediction, classes_of(instances))
        if len(prediction.vectors) == 0:
            empty = [empty_loss(logits) + empty_loss(vectors) for logits, vectors in stages]
            return {"loss_mask": empty_loss(prediction.vectors), "loss_mask_patch": torch.stack(empty).sum()}
        targets = target_masks(instances, self.codec.size)
        self.log(self.refined(stages[-1]).detach(), targets)
        patches = to_patches(targets.float(), self.patch_codec.size)
        kinds = patch_kinds(patches)
        known = known_pixels(instances, self.codec.size)
        # A patch with an unlabelled pixel may be of any kind.
        whole = None if known is None else to_patches(known.float(), self.patch_codec.size).amin(dim=(-2, -1)) == 1
        with torch.autocast(targets.device.type, enabled=False):
            target_vectors = self.patch_codec.encode(patches)
            losses = [patch_loss(*stage, kinds, target_vectors, self.distance, whole) for stage in stages]
        weighted = [loss * weight for loss, weight in zip(losses, self.stage_weights[1:], strict=True)]
        return {
            "loss_mask": self.coefficient_loss(prediction.vectors, targets, known),
            "loss_mask_patch": torch.stack(weighted).sum(),
        }

    def refined(self, stage: PatchStage) -> Tensor:
        """Returns the mask of a stage, (R, output_size, output_size) in [0, 1]."""
        mixed = _decode(self.patch_codec, stage.vectors).clamp(0, 1)
        return from_patches(fill_patches(confident_kinds(stage.kind_logits, self.patch_threshold), mixed))

    def probs(self, prediction: PatchDCTPrediction, classes: Tensor) -> Tensor:
        """Returns (R, 1, output_size, output_size)."""
        return self.refined(self.refine(prediction, classes)[-1])[:, None]


def _decode(codec: DCTCodec, vectors: Tensor) -> Tensor:
    """Returns masks in float32, near 0 and 1: half precision would round coefficients by more than the network's own error."""
    with torch.autocast(vectors.device.type, enabled=False):
        return codec.decode(vectors.float())


def _with_deprecated(
    stage_weights: Sequence[float], coefficient_weight: float | None, patch_weight: float | None, num_coefficients: int
) -> list[float]:
    weights = [float(weight) for weight in stage_weights]
    if coefficient_weight is not None:
        weights[0] = coefficient_weight * num_coefficients
    if patch_weight is not None:
        weights[1] = patch_weight
    if coefficient_weight is not None or patch_weight is not None:
        warnings.warn(
            f"coefficient_weight and patch_weight of PatchDCTMaskHead are deprecated: set stage_weights={weights}",
            DeprecationWarning,
            stacklevel=2,
        )
    return weights


def _initialise_as_pytorch(part: nn.Module) -> None:
    for layer in part.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.reset_parameters()
