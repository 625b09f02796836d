"""Mask R-CNN on a GPU as one CUDA graph for each size of images."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances

from maskrcnn_ext.inference.optimization.cuda_graphs import CUDAGraphs
from maskrcnn_ext.inference.optimization.fixed_size import FixedSizeDetection
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN


class GraphedRCNN(CompactRCNN):
    """A CompactRCNN in which the host waits for the GPU once: for the number of detections."""

    def __init__(self, **parts: Any) -> None:
        """Takes :func:`parts_of` a model of which :func:`maskrcnn_ext.inference.optimization.fixed_size.unsupported_reason` is None."""
        super().__init__(**parts)
        detection = FixedSizeDetection(self)
        self.detect = CUDAGraphs(detection, detection.settings)

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """As in CompactRCNN."""
        if detected_instances is not None:
            return super().inference(batched_inputs, detected_instances, do_postprocess)
        images = self.preprocess_image(batched_inputs)
        sizes = torch.tensor(images.image_sizes, dtype=torch.float32).to(self.device, non_blocking=True)
        boxes, scores, classes, *masks = self.detect(images.tensor, sizes)
        counts = (scores > -math.inf).sum(dim=1).tolist()
        results = []
        for image, (count, size) in enumerate(zip(counts, images.image_sizes, strict=True)):
            found = Instances(size)
            found.pred_boxes = Boxes(boxes[image, :count])
            found.scores = scores[image, :count]
            found.pred_classes = classes[image, :count]
            if masks:
                found.pred_masks = masks[0][image, :count, None]
            results.append(found)
        return self.compact(batched_inputs, results) if do_postprocess else results


def parts_of(model: GeneralizedRCNN) -> dict[str, Any]:
    """The arguments that make a GeneralizedRCNN of a model's parts."""
    return {
        "backbone": model.backbone,
        "proposal_generator": model.proposal_generator,
        "roi_heads": model.roi_heads,
        "pixel_mean": model.pixel_mean.flatten().tolist(),
        "pixel_std": model.pixel_std.flatten().tolist(),
        "input_format": model.input_format,
    }
