"""What torchvision's detectors compute otherwise than Detectron2's, for weights that were trained with it."""

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
    """Anchors of whole pixels, at strides that are the padded image's size divided by the grid's.

    Both differ from the nominal: at ratio 0.5 an anchor of 32 is 46 x 22 and not 45.25 x 22.63, and p6, whose grid is rounded up, has a
    stride below 64 where the image is an odd multiple of 32 pixels high or wide.
    """

    def generate_cell_anchors(self, sizes: Any = (32,), aspect_ratios: Any = (0.5, 1, 2)) -> Tensor:
        """Returns (sizes x ratios, 4), x0, y0, x1, y1 around the origin, in pixels of the model's input."""
        anchors: Tensor = super().generate_cell_anchors(sizes, aspect_ratios).round()
        return anchors

    def _grid_anchors(self, grid_sizes: list[list[int]]) -> list[Tensor]:
        # The first level's grid divides the padded image without a rest.
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
    """GeneralizedRCNN whose masks are pasted as torchvision does: into boxes of whole pixels, with a margin of one sample of zeros.

    Training is Detectron2's; the masks of results are :class:`RLEMasks`, of the pixels with a probability of 0.5 or more.
    """

    @staticmethod
    def postprocess(found: Instances, height: int, width: int) -> Instances:
        """Detectron2's ``detector_postprocess``, and torchvision's ``paste_masks_in_image`` one mask at a time.

        Args:
            found: raw results; its boxes are changed in place, as Detectron2 does.
            height: of the image that the results are for, in pixels.
            width: as `height`.
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
