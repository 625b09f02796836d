"""Detectron2's box predictor with a choice of which overlapping detections are suppressed as duplicates of one object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, batched_nms
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from maskrcnn_ext.common.ranges import is_at_least, is_share
from maskrcnn_ext.common.text import or_list
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.tensor_inference import clip_boxes, image_window, is_finite
from maskrcnn_ext.ops.mask_paste import paste_to_rle
from maskrcnn_ext.ops.suppression import diou_nms, mask_nms, maskness, soft_nms

SUPPRESSIONS = ("hard", "soft", "diou", "mask")
# Candidates for mask suppression, in detections of an image: the mask head predicts a mask for each.
_CANDIDATES = 2


class Candidates(Instances):
    """Detections of one image that choose among themselves when they get ``pred_masks``.

    Detectron2's RoI heads ask the box predictor for detections before the mask head has seen them, and expect them in the same object
    afterwards.
    """

    _choose: Callable[[Instances], Instances] | None = None

    @classmethod
    def of(cls, found: Instances, choose: Callable[[Instances], Instances]) -> Candidates:
        """Returns candidates of which `choose`, called with their ``pred_masks`` (R, 1, S, S), returns the detections."""
        candidates = cls(found.image_size, **found.get_fields())
        candidates._choose = choose
        return candidates

    def set(self, name: str, value: Any) -> None:
        """Sets a field as Instances does; with ``pred_masks`` set, the candidates are reduced to the detections."""
        super().set(name, value)
        if name == "pred_masks" and self._choose is not None:
            choose, self._choose = self._choose, None
            chosen = choose(Instances(self.image_size, **self.get_fields()))
            self._fields = dict(chosen.get_fields())


class BoxPredictor(FastRCNNOutputLayers):
    """FastRCNNOutputLayers whose detections are selected by another rule, for dense and overlapping objects.

    Weights, training and, by default, detections are Detectron2's.

    * ``hard``: a box is dropped if its IoU with a better one exceeds ``test_nms_thresh``.
    * ``soft``: its score is lowered instead (Soft-NMS, arXiv:1704.04503).
    * ``diou``: the distance of centres is subtracted from the IoU (DIoU-NMS, arXiv:1911.08287).
    * ``mask``: a mask is dropped if its IoU with a better mask exceeds ``test_nms_thresh``. Boxes of diagonal neighbours overlap much
      more than the objects do. The mask head predicts up to twice as many masks.

    In yacs configs, ``MODEL.ROI_HEADS.NAME: BoxPredictorROIHeads`` selects it, and ``MODEL.MASKRCNN_EXT.BoxPredictor`` has its arguments.

    Example::

        model.roi_heads.box_predictor._target_=maskrcnn_ext.BoxPredictor model.roi_heads.box_predictor.suppression=mask
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        suppression: str = "hard",
        class_agnostic_suppression: bool = False,
        soft_sigma: float = 0.5,
        candidate_nms_thresh: float = 0.8,
        use_maskness: bool = False,
        **stock: Any,
    ) -> None:
        """Builds the layers of FastRCNNOutputLayers.

        Args:
            input_shape: see FastRCNNOutputLayers.
            suppression: "hard", "soft", "diou" or "mask", see the class.
            class_agnostic_suppression: whether detections of different classes suppress each other, for objects that have one class each.
            soft_sigma: of "soft", see :func:`maskrcnn_ext.ops.suppression.soft_nms`.
            candidate_nms_thresh: of "mask": box IoU above which a detection counts as a duplicate before its mask is known.
            use_maskness: whether scores are multiplied by the mean probability of their masks' pixels, as EVA-02 (arXiv:2303.11331)
                does in instance segmentation. They rank detections by the quality of their masks.
            **stock: the arguments of FastRCNNOutputLayers.

        Raises:
            InputError: an unknown suppression, or a number out of range.
        """
        super().__init__(input_shape, **stock)
        if suppression not in SUPPRESSIONS:
            raise InputError(
                f"model.roi_heads.box_predictor.suppression={suppression}: expected {or_list(list(SUPPRESSIONS))}"
            )
        if not is_at_least(soft_sigma, 0) or soft_sigma == 0:
            raise InputError(f"model.roi_heads.box_predictor.soft_sigma={soft_sigma}: expected a number above 0")
        if not is_share(candidate_nms_thresh, above_zero=True):
            raise InputError(
                f"model.roi_heads.box_predictor.candidate_nms_thresh={candidate_nms_thresh}: expected an IoU above 0 and up to 1"
            )
        self.suppression = suppression
        self.class_agnostic_suppression = class_agnostic_suppression
        self.soft_sigma = soft_sigma
        self.candidate_nms_thresh = candidate_nms_thresh
        self.use_maskness = use_maskness

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Returns the arguments from a yacs config: those of FastRCNNOutputLayers, and ``MODEL.MASKRCNN_EXT.BoxPredictor``."""
        own = cfg.MODEL.get("MASKRCNN_EXT", CfgNode()).get("BoxPredictor", CfgNode())
        stock: dict[str, Any] = super().from_config(cfg, input_shape)
        return {**stock, **{name.lower(): value for name, value in own.items()}}

    @property
    def needs_masks(self) -> bool:
        """Whether detections are selected by their masks, which only a model with a mask head has."""
        return self.suppression == "mask" or self.use_maskness

    @property
    def suppresses_by_box_iou(self) -> bool:
        """Whether the rule is Detectron2's, up to the classes that it compares."""
        return self.suppression == "hard" and not self.use_maskness

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Returns each image's detections by descending score, and the indices of their proposals.

        If the selection needs masks, these are the candidates for it, see :class:`Candidates`.

        Args:
            predictions: logits (R, K + 1), background last, and deltas (R, K * 4) or (R, 4), of all images.
            proposals: the proposals of each image.
        """
        if self.suppresses_by_box_iou and not self.class_agnostic_suppression:
            found: tuple[list[Instances], list[Tensor]] = super().inference(predictions, proposals)
            return found
        boxes, probs = self.predict_boxes(predictions, proposals), self.predict_probs(predictions, proposals)
        detections, rows = [], []
        for of_image, scores, image in zip(boxes, probs, proposals, strict=True):
            chosen = self.suppress(_probable(of_image, scores, image.image_size, self.test_score_thresh))
            detections.append(chosen)
            rows.append(chosen.get("row"))
            chosen.remove("row")
        return detections, rows

    def suppress(self, found: Instances) -> Instances:
        """Returns the detections among all boxes of an image, or the candidates if the selection needs masks.

        Args:
            found: ``pred_boxes``, ``scores``, ``pred_classes`` and other fields.
        """
        boxes, scores, limit = found.pred_boxes.tensor, found.scores, self.test_topk_per_image
        groups = self._groups(found)
        if self.suppression == "soft":
            keep, lowered = soft_nms(
                boxes, scores, groups, sigma=self.soft_sigma, score_threshold=self.test_score_thresh, limit=limit
            )
            found = found[keep]
            found.scores = lowered
        else:
            if self.suppression == "diou":
                keep = diou_nms(boxes, scores, groups, self.test_nms_thresh)
            elif self.suppression == "mask":
                keep, limit = batched_nms(boxes, scores, groups, self.candidate_nms_thresh), _CANDIDATES * limit
            else:
                keep = batched_nms(boxes, scores, groups, self.test_nms_thresh)
            found = found[keep[:limit] if limit >= 0 else keep]
        return Candidates.of(found, self._choose_by_masks) if self.needs_masks else found

    def _choose_by_masks(self, found: Instances) -> Instances:
        """Returns the detections among candidates with ``pred_masks`` (R, 1, S, S), by descending score."""
        probs = found.pred_masks[:, 0]
        if self.use_maskness:
            found.scores = found.scores * maskness(probs)
        if self.suppression == "mask":
            boxes = found.pred_boxes.tensor
            rles = paste_to_rle(probs.float(), boxes, found.image_size)
            keep = mask_nms(rles, boxes, found.scores, self._groups(found), self.test_nms_thresh)
        else:
            keep = found.scores.argsort(descending=True, stable=True)
        limit = self.test_topk_per_image
        return found[keep[:limit] if limit >= 0 else keep]

    def _groups(self, found: Instances) -> Tensor:
        classes: Tensor = found.pred_classes
        return torch.zeros_like(classes) if self.class_agnostic_suppression else classes


def check_box_predictor(roi_heads: nn.Module) -> None:
    """Checks that RoI heads can use their :class:`BoxPredictor`.

    Raises:
        InputError: a cascade, which selects detections itself, or no mask head for a selection by masks.
    """
    predictor = getattr(roi_heads, "box_predictor", None)
    for one in predictor if isinstance(predictor, nn.ModuleList) else [predictor]:
        if not isinstance(one, BoxPredictor):
            continue
        if isinstance(predictor, nn.ModuleList):
            raise InputError(
                f"{type(roi_heads).__name__} selects detections itself, without BoxPredictor: "
                "use detectron2.modeling.roi_heads.FastRCNNOutputLayers in model.roi_heads.box_predictors"
            )
        if one.needs_masks and not getattr(roi_heads, "mask_on", False):
            raise InputError(
                "the model has no mask head, and BoxPredictor selects by masks: set model.roi_heads.box_predictor.suppression to "
                "hard, soft or diou, and use_maskness=false"
            )


def _probable(boxes: Tensor, probs: Tensor, size: tuple[int, int], score_threshold: float) -> Instances:
    """Returns an entry for each proposal and class above the threshold: clipped box, score, class, and the proposal's index as ``row``.

    Args:
        boxes: (R, 4 * K), or (R, 4) if all classes share a box.
        probs: (R, K + 1), background last.
        size: height and width of the image in pixels.
        score_threshold: entries have a higher probability.
    """
    valid = is_finite(boxes).all(dim=1) & is_finite(probs).all(dim=1)
    row, classes = ((probs[:, :-1] > score_threshold) & valid[:, None]).nonzero().unbind(1)
    boxes = clip_boxes(boxes.unflatten(1, (-1, 4)), image_window(size))
    boxes = boxes[row, classes] if boxes.shape[1] > 1 else boxes[row, 0]
    return Instances(size, pred_boxes=Boxes(boxes), scores=probs[row, classes], pred_classes=classes, row=row)
