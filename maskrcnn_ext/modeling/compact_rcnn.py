"""Mask R-CNN with RLE masks in its results, instead of one array of the size of the image for each object as in Detectron2."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances, ROIMasks

from maskrcnn_ext.ops.mask_paste import paste_to_rle
from maskrcnn_ext.ops.rle_masks import RLEMasks


class CompactRCNN(GeneralizedRCNN):
    """Detectron2's GeneralizedRCNN with ``pred_masks`` as :class:`RLEMasks`.

    Arguments, weights, training and masks are the same, bit for bit, but no mask of the size of the image is ever built. Evaluators that
    iterate over the masks, such as Detectron2's COCOEvaluator, work unchanged.

    Example::

        model._target_=maskrcnn_ext.CompactRCNN
    """

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """Returns detections as Detectron2 does; with ``do_postprocess``, masks are RLEs in the frame of the stored images."""
        results = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        return self.compact(batched_inputs, results) if do_postprocess else results

    def compact(self, batched_inputs: list[dict[str, Any]], results: list[Instances]) -> list[dict[str, Instances]]:
        """Returns raw results in the frame of the stored images."""
        return [
            {"instances": self.postprocess(found, *output_size(image, found))}
            for image, found in zip(batched_inputs, results, strict=True)
        ]

    @staticmethod
    def postprocess(found: Instances, height: int, width: int) -> Instances:
        """Calls :func:`compact_postprocess`; subclasses may override it."""
        return compact_postprocess(found, height, width)


def output_size(image: dict[str, Any], found: Instances) -> tuple[int, int]:
    """Returns height and width of the stored image from the model's input, or the size of the model's image if they are missing."""
    height, width = found.image_size
    return image.get("height", height), image.get("width", width)


def compact_postprocess(found: Instances, height: int, width: int, mask_threshold: float = 0.5) -> Instances:
    """Returns the result of Detectron2's ``detector_postprocess`` with masks as :class:`RLEMasks`, bit for bit equal on a CPU.

    Args:
        found: raw results of ``inference(..., do_postprocess=False)``; the boxes are changed in place, as in Detectron2.
        height: height of the image of the result in pixels.
        width: width of that image in pixels.
        mask_threshold: lowest probability of a pixel of the mask.
    """
    fields = found.get_fields()
    masks = fields.get("pred_masks")
    rest = {name: value for name, value in fields.items() if name != "pred_masks"}
    if masks is None:
        return detector_postprocess(Instances(found.image_size, **rest), height, width)
    # The numbers show which detections are kept.
    numbered = Instances(found.image_size, **rest, number=torch.arange(len(found), device=found.pred_boxes.device))
    kept = detector_postprocess(numbered, height, width)
    probabilities = masks.tensor if isinstance(masks, ROIMasks) else masks[:, 0]
    rles = paste_to_rle(probabilities[kept.number], kept.pred_boxes.tensor, (height, width), mask_threshold)
    kept.remove("number")
    kept.pred_masks = RLEMasks(rles, (height, width))
    return kept
