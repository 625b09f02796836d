"""Losses of masks from points or boxes: PointSup (arXiv:2104.06404) and BoxInst (arXiv:2012.02310) on the grid of a RoI.

R: RoIs of all images in the batch, S: side of the grid over a proposal.
"""

from __future__ import annotations

import torch
from detectron2.projects.point_rend.point_features import point_sample
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.losses import mean_known

# As in the authors' code: distance to the neighbours in cells, temperature and threshold of the similarity of colours.
_DILATION = 2
_TEMPERATURE = 2.0
_SIMILAR = 0.3
_BACKGROUND = -20.0  # logit of a cell that is known to be no mask


def proposal_points(instances: list[Instances]) -> tuple[Tensor, Tensor]:
    """Returns the labelled points of each RoI's object, relative to its proposal.

    Args:
        instances: with ``proposal_boxes`` and, in an image with points, ``gt_point_coords`` and ``gt_point_labels``, one for each image.

    Returns:
        (R, P, 2) in [0, 1]; (R, P) float32: 1 for the mask, 0 for the background, -1 for no point, or one outside of the proposal. P is 1
        or more.
    """
    most = max([1, *(image.gt_point_coords.shape[1] for image in instances if image.has("gt_point_coords"))])
    coords, labels = [], []
    for image in instances:
        boxes = image.proposal_boxes.tensor
        relative, marks = boxes.new_zeros(len(boxes), most, 2), boxes.new_full((len(boxes), most), -1)
        if image.has("gt_point_coords"):
            count = image.gt_point_coords.shape[1]
            sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
            relative[:, :count] = (image.gt_point_coords - boxes[:, None, :2]) / sides[:, None]
            marks[:, :count] = image.gt_point_labels
        inside = ((relative >= 0) & (relative <= 1)).all(dim=2)
        coords.append(relative.clamp(0, 1))
        labels.append(marks.masked_fill(~inside, -1))
    return torch.cat(coords), torch.cat(labels)


def point_supervision_loss(logits: Tensor, instances: list[Instances]) -> Tensor:
    """Returns the mean binary cross-entropy at the labelled points, of logits interpolated there (arXiv:2104.06404).

    Args:
        logits: (R, S, S) of each RoI's class.
        instances: see :func:`proposal_points`.
    """
    coords, labels = proposal_points(instances)
    at_points = point_sample(logits[:, None].float(), coords, align_corners=False)[:, 0]
    losses = F.binary_cross_entropy_with_logits(at_points, labels.clamp(min=0), reduction="none")
    return mean_known(losses, labels >= 0)


def box_supervision_loss(logits: Tensor, instances: list[Instances], warmup: int) -> Tensor:
    """Returns BoxInst's loss: :func:`projection_loss`, and :func:`pairwise_loss` with a weight that rises from 0 to 1.

    In the paper, masks are those of the whole image, and the corners of a box learn that they are no mask from the similar pixels outside.
    A proposal ends there, so its cells are also paired with those in a margin around it, if they are in the image and outside of the box.

    Args:
        logits: (R, S, S) of each RoI's class.
        instances: with ``proposal_boxes``, ``gt_boxes`` and ``gt_image``, one for each image.
        warmup: iterations in which the weight of the pairwise term rises.

    Raises:
        InputError: an image has no ``gt_image``.
    """
    logits, size = logits.float(), logits.shape[-1] + 2 * _DILATION
    found = [image for image in instances if len(image)]  # an image without ground truth has no gt_boxes
    boxes = torch.cat([image.gt_boxes.tensor for image in found])
    colors, inside_image = [], []
    for image in found:
        if not image.has("gt_image"):
            raise InputError("mask_loss=box compares colours: set dataloader.train.mapper.keep_image=true")
        around = _with_margin(image.proposal_boxes.tensor, size)
        whole = around.new_tensor([0, 0, *image.image_size[::-1]]).expand_as(around)
        colors.append(image.gt_image.crops(around, size))
        inside_image.append(_both(*cells_inside(whole, around, size)))
    proposals = torch.cat([image.proposal_boxes.tensor for image in found])
    columns, rows = cells_inside(boxes, _with_margin(proposals, size), size)
    inside = _both(columns, rows)
    # Beside a proposal, what is outside of the object's box is background.
    is_margin = F.pad(torch.zeros_like(logits, dtype=torch.bool), [_DILATION] * 4, value=True)
    known = ~is_margin | (torch.cat(inside_image) & ~inside)
    pairwise = pairwise_loss(F.pad(logits, [_DILATION] * 4, value=_BACKGROUND), torch.cat(colors), inside, known)
    weight = min(get_event_storage().iter / warmup, 1.0) if warmup > 0 else 1.0
    own = slice(_DILATION, -_DILATION)
    return projection_loss(logits, columns[:, own], rows[:, own]) + weight * pairwise


def _with_margin(proposals: Tensor, size: int) -> Tensor:
    """Returns the boxes (R, 4) of proposals with a margin on each side, so that they have `size` cells in each direction."""
    margin = (proposals[:, 2:] - proposals[:, :2]) * (_DILATION / (size - 2 * _DILATION))
    return torch.cat([proposals[:, :2] - margin, proposals[:, 2:] + margin], dim=1)


def _both(columns: Tensor, rows: Tensor) -> Tensor:
    """Returns the cells (R, S, S) in columns (R, S) and rows (R, S)."""
    return rows[:, :, None] & columns[:, None, :]


def cells_inside(boxes: Tensor, proposals: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Returns which columns and which rows of the grid over a proposal have their centre in the ground-truth box, (R, size) bool each."""
    centres = (torch.arange(size, device=boxes.device) + 0.5) / size
    low, sides = proposals[:, :2], proposals[:, 2:] - proposals[:, :2]
    x, y = (low[:, :, None] + sides[:, :, None] * centres).unbind(dim=1)
    x0, y0, x1, y1 = boxes[:, :, None].unbind(dim=1)
    return (x >= x0) & (x < x1), (y >= y0) & (y < y1)


def projection_loss(logits: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Returns the dice loss between the maxima of the mask along each axis and the box's (arXiv:2012.02310), a mean over masks.

    Args:
        logits: (R, S, S).
        columns: (R, S) bool, see :func:`cells_inside`.
        rows: (R, S) bool.
    """
    probs = logits.sigmoid()
    losses = []
    for projection, inside in ((probs.amax(dim=1), columns), (probs.amax(dim=2), rows)):
        target = inside.to(projection)
        overlap = (projection * target).sum(dim=1)
        total = projection.square().sum(dim=1) + target.sum(dim=1)
        losses.append(1 - 2 * overlap / total.clamp(min=1e-5))
    return torch.stack(losses).sum(dim=0).mean()


def pairwise_loss(logits: Tensor, colors: Tensor, inside: Tensor, known: Tensor) -> Tensor:
    """Returns the mean of -log P(both cells are mask, or both are not) over pairs of similar colour (arXiv:2012.02310).

    A cell is paired with its eight neighbours at a distance of two cells, if one of the two is in the box and the similarity
    exp(-|c1 - c2| / 2) of their colours is 0.3 or more. As in the authors' code, only such pairs are counted in the mean.

    Args:
        logits: (R, S, S).
        colors: (R, 3, S, S) in CIELAB.
        inside: (R, S, S) bool, the cells in the ground-truth box.
        known: (R, S, S) bool, the cells that are paired.
    """
    size = logits.shape[-1]
    mask, other = F.logsigmoid(logits), F.logsigmoid(-logits)
    total, count = logits.sum() * 0, inside.new_zeros((), dtype=torch.int64)
    # Of two opposite neighbours, one: the loss of a pair is symmetric.
    for down, right in ((0, _DILATION), (_DILATION, 0), (_DILATION, _DILATION), (_DILATION, -_DILATION)):
        low, high = max(-right, 0), max(right, 0)
        one = (..., slice(0, size - down), slice(low, size - high))
        two = (..., slice(down, size), slice(high, size - low))
        distance = (colors[one] - colors[two]).norm(dim=1)
        pairs = (inside[one] | inside[two]) & known[one] & known[two]
        pairs &= (-distance / _TEMPERATURE).exp() >= _SIMILAR
        same = torch.logaddexp(mask[one] + mask[two], other[one] + other[two])
        total = total - (same * pairs).sum()
        count = count + pairs.sum()
    return total / count.clamp(min=1)
