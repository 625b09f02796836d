"""The parts of torchvision's detectors that compute differently from Detectron2's; imported weights need them."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Instances
from torch import Tensor

from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN, compact_postprocess
from maskrcnn_ext.ops.rle import encode_mask, with_byte_counts
from maskrcnn_ext.ops.rle_masks import RLEMasks


class TorchvisionAnchorGenerator(DefaultAnchorGenerator):
    """Generates anchors of whole pixels, at strides of the padded image's size divided by the grid's size.

    Both differ from the nominal values: at ratio 0.5 an anchor of 32 is 46 x 22 instead of 45.25 x 22.63, and p6, whose grid is rounded
    up, has a stride below 64 if a side of the image is an odd multiple of 32 pixels.
    """

    def generate_cell_anchors(self, sizes: Any = (32,), aspect_ratios: Any = (0.5, 1, 2)) -> Tensor:
        """Returns anchors (sizes * ratios, 4) around the origin, in pixels of the model's input."""
        anchors: Tensor = super().generate_cell_anchors(sizes, aspect_ratios).round()
        return anchors

    def _grid_anchors(self, grid_sizes: list[list[int]]) -> list[Tensor]:
        # The padded image is a multiple of the first level's grid.
        image = [self.strides[0] * side for side in grid_sizes[0]]
        anchors = []
        for (height, width), cell in zip(grid_sizes, self.cell_anchors, strict=True):
            y = torch.arange(height, device=cell.device) * (image[0] // height)
            x = torch.arange(width, device=cell.device) * (image[1] // width)
            y, x = torch.meshgrid(y, x, indexing="ij")
            shifts = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4).to(cell.dtype)
            anchors.append((shifts + cell).reshape(-1, 4))
        return anchors


class TorchvisionRCNN(CompactRCNN):
    """A GeneralizedRCNN that pastes masks as torchvision does: into boxes of whole pixels, with a margin of one sample of zeros.

    Training is Detectron2's. The masks of results are :class:`RLEMasks` of the pixels with a probability of at least 0.5.
    """

    @staticmethod
    def postprocess(found: Instances, height: int, width: int) -> Instances:
        """Computes Detectron2's ``detector_postprocess`` with torchvision's ``paste_masks_in_image``, one mask at a time.

        Args:
            found: raw results; their boxes are changed in place, as by Detectron2.
            height: height of the output image in pixels.
            width: width of the output image in pixels.
        """
        from torchvision.models.detection.roi_heads import paste_masks_in_image

        if not found.has("pred_masks"):
            return compact_postprocess(found, height, width)
        fields = found.get_fields()
        rest = {name: value for name, value in fields.items() if name != "pred_masks"}
        numbers = torch.arange(len(found), device=found.pred_boxes.device)
        kept = compact_postprocess(Instances(found.image_size, **rest, number=numbers), height, width)
        masks, boxes = fields["pred_masks"][kept.number].cpu(), kept.pred_boxes.tensor.cpu()
        rles = []
        for mask, box in zip(masks, boxes, strict=True):
            pasted = paste_masks_in_image(mask[None], box[None], (height, width))[0, 0] >= 0.5
            rles.append(with_byte_counts(encode_mask(pasted.numpy())))
        kept.remove("number")
        kept.pred_masks = RLEMasks(rles, (height, width))
        return kept
