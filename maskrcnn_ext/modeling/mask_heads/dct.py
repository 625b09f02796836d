"""The head of DCT-Mask: a mask of 128 x 128 pixels as a vector of 300 DCT coefficients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.base import MaskHead, empty_loss
from maskrcnn_ext.modeling.mask_heads.ground_truth import known_pixels, log_accuracy, log_images, target_masks
from maskrcnn_ext.modeling.mask_heads.layers import conv_stack, fc_stack
from maskrcnn_ext.ops.dct import DCTCodec

# Distance of each coefficient to its target; the beta of smooth L1 is 1.
DISTANCES: dict[str, Callable[..., Tensor]] = {"l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss, "l2": F.mse_loss}


def dct_loss(vectors: Tensor, targets: Tensor, distance: str = "l1") -> Tensor:
    """Returns the summed distance of the coefficients, averaged over the masks (DCT-Mask, arXiv:2011.09876, equation 6).

    Args:
        vectors: (R, k), predicted, R > 0.
        targets: (R, k), the DCT of the ground truth.
        distance: a key of :data:`DISTANCES`.
    """
    return DISTANCES[distance](vectors.float(), targets, reduction="none").sum(1).mean()


class DCTMaskHead(MaskHead):
    """Regresses the lowest DCT frequencies of a class-agnostic mask (DCT-Mask, CVPR 2021, arXiv:2011.09876, section 3.2).

    Example::

        model.roi_heads.mask_head._target_=maskrcnn_ext.DCTMaskHead
    """

    needs_exact_size = True

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        fc_dims: Sequence[int] = (1024, 1024),
        num_coefficients: int = 300,
        output_size: int = 128,
        coefficient_weight: float = 0.007,
        distance: str = "l1",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Builds the layers, for RoI features of one size. See :class:`.base.MaskHead` for the arguments of every head.

        Args:
            conv_dims: channels of the 3 x 3 convolutions; the last entry, a deconvolution in Mask R-CNN's head, is not used.
            fc_dims: outputs of the hidden fully connected layers.
            num_coefficients: length of the vector, N of the paper.
            output_size: side of the mask in pixels, K of the paper.
            coefficient_weight: factor of the distance of the coefficients; 0.007 for COCO in the paper.
            distance: of a coefficient to its target: "l1" as in the paper, "smooth_l1" (beta 1) or "l2".

        Raises:
            InputError: an unknown ``distance``.
        """
        super().__init__(input_shape, num_classes=num_classes, loss_weight=loss_weight, vis_period=vis_period)
        if distance not in DISTANCES:
            raise InputError(
                f"no distance {distance!r}: set model.roi_heads.mask_head.distance to one of {', '.join(DISTANCES)}"
            )
        self.distance = distance
        self.coefficient_weight = coefficient_weight
        dims, fc_dims = list(conv_dims)[:-1], list(fc_dims)
        self.convs = conv_stack(input_shape.channels, dims, norm=conv_norm)
        channels = dims[-1] if dims else input_shape.channels
        self.fcs = fc_stack(channels * input_shape.height * input_shape.width, fc_dims)
        self.predictor = nn.Linear(fc_dims[-1], num_coefficients)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)
        self.codec = DCTCodec(output_size, num_coefficients)

    def predict(self, x: Tensor, boxes: list[Boxes]) -> Tensor:  # noqa: ARG002
        """Returns (R, num_coefficients)."""
        vectors: Tensor = self.predictor(self.fcs(self.convs(x).flatten(1)))
        return vectors

    def losses(self, prediction: Tensor, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask``."""
        if len(prediction) == 0:
            return {"loss_mask": empty_loss(prediction)}
        targets = target_masks(instances, self.codec.size)
        self.log(self.decode(prediction), targets)
        return {"loss_mask": self.coefficient_loss(prediction, targets, known_pixels(instances, self.codec.size))}

    def coefficient_loss(self, vectors: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
        """Returns the weighted :func:`dct_loss` against masks (R, output_size, output_size).

        At pixels where the boolean ``known`` is False, the target is the prediction itself: they add no error to the coefficients.
        """
        # Coefficients reach 128: half precision would round them by more than the network's own error.
        with torch.autocast(vectors.device.type, enabled=False):
            targets = targets.float()
            if known is not None:
                targets = torch.where(known, targets, self.codec.decode(vectors.detach().float()))
            return dct_loss(vectors, self.codec.encode(targets), self.distance) * self.coefficient_weight

    def decode(self, vectors: Tensor) -> Tensor:
        """Returns (R, output_size, output_size) in [0, 1]."""
        with torch.autocast(vectors.device.type, enabled=False):
            return self.codec.decode(vectors.float()).clamp(0, 1)

    def log(self, probs: Tensor, targets: Tensor) -> None:
        """Writes the scalars and pictures of masks (R, S, S) and their targets."""
        log_accuracy(probs > 0.5, targets)
        log_images(probs, targets, self.vis_period)

    def probs(self, prediction: Tensor, classes: Tensor) -> Tensor:  # noqa: ARG002
        """Returns (R, 1, output_size, output_size)."""
        return self.decode(prediction)[:, None]
