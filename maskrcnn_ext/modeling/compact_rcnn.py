"""Mask R-CNN whose results hold RLEs: Detectron2 gives one array of the image's size for every object."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances, ROIMasks

from maskrcnn_ext.ops.mask_paste import paste_to_rle
from maskrcnn_ext.ops.rle_masks import RLEMasks


class CompactRCNN(GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN with ``pred_masks`` as :class:`RLEMasks`: ``model._target_=maskrcnn_ext.CompactRCNN``.

    The arguments, the weights and the training are the same, and so are the masks, bit for bit, without ever holding an image's size of
    memory for each. Evaluators that go over the masks, as Detectron2's COCOEvaluator, take them as they are.
    """

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """As in Detectron2; with ``do_postprocess`` the masks are RLEs of the images as stored."""
        results = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        return self.compact(batched_inputs, results) if do_postprocess else results

    def compact(self, batched_inputs: list[dict[str, Any]], results: list[Instances]) -> list[dict[str, Instances]]:
        """Brings raw results to the images as stored."""
        return [
            {"instances": self.postprocess(found, *output_size(image, found))}
            for image, found in zip(batched_inputs, results, strict=True)
        ]

    @staticmethod
    def postprocess(found: Instances, height: int, width: int) -> Instances:
        """As :func:`compact_postprocess`."""
        return compact_postprocess(found, height, width)


def output_size(image: dict[str, Any], found: Instances) -> tuple[int, int]:
    """Height and width of the image as stored: what the model's input says, else the size that the model has seen."""
    height, width = found.image_size
    return image.get("height", height), image.get("width", width)


def compact_postprocess(found: Instances, height: int, width: int, mask_threshold: float = 0.5) -> Instances:
    """Detectron2's ``detector_postprocess`` with masks as :class:`RLEMasks`, equal to its bit masks on a CPU bit for bit.

    Args:
        found: raw results, of ``inference(..., do_postprocess=False)``; its boxes are changed in place, as Detectron2 does.
        height: of the image that the results are for, in pixels.
        width: as `height`.
        mask_threshold: least probability of a mask's pixel.
    """
    fields = found.get_fields()
    masks = fields.get("pred_masks")
    rest = {name: value for name, value in fields.items() if name != "pred_masks"}
    if masks is None:
        return detector_postprocess(Instances(found.image_size, **rest), height, width)
    # What is kept is known by its number.
    numbered = Instances(found.image_size, **rest, number=torch.arange(len(found), device=found.pred_boxes.device))
    kept = detector_postprocess(numbered, height, width)
    probabilities = masks.tensor if isinstance(masks, ROIMasks) else masks[:, 0]
    rles = paste_to_rle(probabilities[kept.number], kept.pred_boxes.tensor, (height, width), mask_threshold)
    kept.remove("number")
    kept.pred_masks = RLEMasks(rles, (height, width))
    return kept
