"""RPN proposals: the best anchors are chosen first, and only theirs are decoded."""

from __future__ import annotations

import torch
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn


class TopProposals(nn.Module):
    """An ``RPN`` in inference.

    Detectron2 decodes the boxes of all anchors, a quarter of a million for 800 x 1216 pixels, and sorts all of them, to go on with a
    thousand a level. Here the thousand are picked first, and everything after that is the RPN's own.
    """

    def __init__(self, rpn: RPN) -> None:
        """Takes over an RPN."""
        super().__init__()
        self.rpn = rpn

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """As RPN's in inference, without ground truth."""
        assert gt_instances is None
        rpn = self.rpn
        maps = [features[name] for name in rpn.in_features]
        anchors = rpn.anchor_generator(maps)
        logits, deltas = rpn.rpn_head(maps)
        logits = [level.permute(0, 2, 3, 1).flatten(1).float() for level in logits]  # (N, H * W * A)
        proposals = []
        for number, size in enumerate(images.image_sizes):
            chosen = [level[number].topk(min(rpn.pre_nms_topk[False], level.shape[1])) for level in logits]
            best = [scores[None] for scores, _ in chosen]
            corners = [Boxes(level.tensor[index]) for level, (_, index) in zip(anchors, chosen, strict=True)]
            own = [_deltas_of(level[number], index, rpn) for level, (_, index) in zip(deltas, chosen, strict=True)]
            proposals += rpn.predict_proposals(corners, best, own, [size])
        return proposals, {}


def _deltas_of(deltas: Tensor, index: Tensor, rpn: RPN) -> Tensor:
    """Deltas (A * B, H, W) of some anchors, numbered by place and then by anchor, as (1, number, B) float32."""
    number = rpn.anchor_generator.num_anchors[0]
    # A view where the map is channels-last.
    by_place = deltas.permute(1, 2, 0).reshape(-1, number, deltas.shape[0] // number)
    return by_place[torch.div(index, number, rounding_mode="floor"), index % number][None].float()
