"""Losses of masks on a grid: pure functions ``loss(logits, targets, known)`` of (R, S, S) tensors. R: masks, S: side in pixels.

Targets are 0 or 1 in the dtype of the logits. Each loss is a mean over the masks; heads do not call it for R = 0. Pixels where the
boolean ``known`` is False, such as those of ignore regions, are left out; None counts all pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from maskrcnn_ext.common.text import or_list
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.boundary import boundary_band


def mean_known(values: Tensor, known: Tensor | None) -> Tensor:
    """Returns the mean of the values where ``known`` is True, of all for None; 0 if it is nowhere True."""
    if known is None:
        return values.mean()
    return (values * known).sum() / known.sum().clamp(min=1)


def bce_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Returns the mean binary cross-entropy of the pixels: the loss of Mask R-CNN (arXiv:1703.06870, section 3)."""
    return mean_known(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), known)


def dice_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None, *, squared: bool = True) -> Tensor:
    """Returns 1 - dice coefficient, smoothed by 1 as in BMask R-CNN (arXiv:2007.08921).

    Args:
        logits: (R, S, S).
        targets: (R, S, S), 0 or 1.
        known: (R, S, S) bool; None if all pixels count.
        squared: whether the denominator sums the squares of the probabilities (V-Net, arXiv:1606.04797, section 3) or the probabilities.
    """
    probs = logits.sigmoid()
    if known is not None:
        probs, targets = probs * known, targets * known
    probs, targets = probs.flatten(1), targets.flatten(1)
    overlap = (probs * targets).sum(1)
    total = (probs.square() if squared else probs).sum(1) + targets.sum(1)  # targets are 0 or 1: their squares
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def focal_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Returns the mean focal loss of the pixels (arXiv:1708.02002, eq. 4), gamma 2, without alpha: a RoI is about half foreground."""
    return mean_known(sigmoid_focal_loss(logits, targets, alpha=-1, gamma=2, reduction="none"), known)


def lovasz_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Returns the Lovász hinge, the convex surrogate of 1 - IoU of each mask (arXiv:1705.08790, equation 9 and algorithm 1)."""
    logits, targets = logits.flatten(1), targets.flatten(1)
    errors = 1 - logits * (2 * targets - 1)
    counted = torch.ones_like(targets) if known is None else known.flatten(1).to(targets)
    if known is not None:
        errors = errors.masked_fill(counted == 0, -torch.inf)  # sorted last, where the hinge is 0
    errors, order = errors.sort(dim=1, descending=True)
    sorted_targets = (targets * counted).gather(1, order)
    total = sorted_targets.sum(1, keepdim=True)
    intersection = total - sorted_targets.cumsum(1)
    union = total + ((1 - targets) * counted).gather(1, order).cumsum(1)
    jaccard = 1 - intersection / union.clamp(min=1)
    weights = torch.diff(jaccard, dim=1, prepend=jaccard.new_zeros(len(jaccard), 1))
    return (errors.relu() * weights).sum(1).mean()


def boundary_weighted_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Returns the binary cross-entropy with weight 5 beside the boundary and 1 elsewhere (as in U-Net, arXiv:1505.04597, eq. 2)."""
    weights = 1 + 4 * boundary_band(targets)
    if known is not None:
        weights = weights * known
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp(min=1)


MASK_LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce": bce_loss,
    "boundary": boundary_weighted_loss,
    "dice": dice_loss,
    "focal": focal_loss,
    "lovasz": lovasz_loss,
}


def check_mask_loss(mask_loss: str, weak: Sequence[str] = ()) -> str:
    """Returns the name.

    Args:
        mask_loss: one of :data:`MASK_LOSSES`, or several of them joined by ``+``; or the same of `weak`.
        weak: losses from points or boxes that the head has, see :mod:`.weak_losses`.

    Raises:
        InputError: a name is unknown, or losses from masks and from points or boxes are mixed.
    """
    names = mask_loss.split("+")
    unknown = [name for name in names if name not in MASK_LOSSES and name not in weak]
    if unknown:
        more = f", or {or_list(weak)} to train without masks" if weak else ""
        raise InputError(
            f"mask_loss={mask_loss}: {unknown[0]!r} is unknown: set one of {', '.join(MASK_LOSSES)}, or a sum such as bce+dice{more}"
        )
    if len({name in weak for name in names}) > 1:
        raise InputError(f"mask_loss={mask_loss}: a loss from masks cannot be added to one from points or boxes")
    return mask_loss


def mask_loss_value(mask_loss: str, logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Returns the sum of the named losses, computed in float32 for logits of any dtype."""
    logits, targets = logits.float(), targets.float()
    return torch.stack([MASK_LOSSES[name](logits, targets, known) for name in mask_loss.split("+")]).sum()
