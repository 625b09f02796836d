"""The recipe of a model that is to be exported."""

from __future__ import annotations

from typing import Any

from detectron2.data import transforms as T
from PIL import Image
from torch import nn

from maskrcnn_ext.data.mapping.augmentation.resizing import Letterbox, PlainResize
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.graph import output_names
from maskrcnn_ext.interop.export.recipe import Recipe
from maskrcnn_ext.modeling.matterport.frame import STRIDE
from maskrcnn_ext.modeling.matterport.rcnn import LetterboxRCNN
from maskrcnn_ext.modeling.torchvision_parts import TorchvisionRCNN


def recipe_of(model: nn.Module, mapper: Any, classes: Any, batched: bool = False) -> Recipe:
    """Returns the recipe of a model.

    Args:
        model: a GeneralizedRCNN.
        mapper: of the config's ``dataloader.test``.
        classes: with the ``names``, ``category_ids`` and ``keypoint_names`` of the outputs.
        batched: of the model that takes several images a call.

    Raises:
        InputError: the mapper does more than to resize, or resizes in a way that is not known here.
    """
    predictor = model.roi_heads.box_predictor
    predictor = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor  # Cascade R-CNN's last stage
    return Recipe(
        image_format=mapper.image_format,
        **_resize(mapper.augmentations.augs),
        pixel_mean=tuple(model.pixel_mean.flatten().tolist()),
        pixel_std=tuple(model.pixel_std.flatten().tolist()),
        size_divisibility=STRIDE if isinstance(model, LetterboxRCNN) else model.backbone.size_divisibility,
        class_names=tuple(classes.names),
        category_ids=tuple(classes.category_ids),
        keypoint_names=tuple(classes.keypoint_names),
        output_names=output_names(model, batched),
        score_threshold=predictor.test_score_thresh,
        nms_threshold=predictor.test_nms_thresh,
        max_detections=predictor.test_topk_per_image if predictor.test_topk_per_image >= 0 else 2**31 - 1,
        batched=batched,
        boxes=_boxes(model),
        masks="torchvision" if isinstance(model, TorchvisionRCNN) else "detectron2",
    )


def _boxes(model: nn.Module) -> str:
    if not isinstance(model, LetterboxRCNN):
        return "detectron2"
    return "matterport, whole pixels" if model.round_boxes else "matterport"


def _resize(augmentations: list[Any]) -> dict[str, Any]:
    """The rule, and the lengths of the short and at most of the long side, as the recipe has them."""
    none = {"resize": "none", "short_edge": 0, "long_edge": 0}
    if not augmentations:
        return none
    first = augmentations[0]
    if len(augmentations) == 1 and isinstance(first, PlainResize):
        return {"resize": first.style, "short_edge": first.short_edge_length, "long_edge": first.max_size}
    if len(augmentations) == 1 and type(first) is Letterbox and first.pad is None:
        sides = {"short_edge": int(first.min_dim or 0), "long_edge": int(first.max_dim or 0)}
        return {"resize": "matterport", **sides, "least_scale": float(first.min_scale or 0)}
    if len(augmentations) == 1 and type(first) is T.ResizeShortestEdge and first.interp == Image.Resampling.BILINEAR:
        lengths = set(first.short_edge_length)
        if len(lengths) == 1:
            length = int(lengths.pop())
            return {"resize": "pillow", "short_edge": length, "long_edge": int(first.max_size)} if length else none
    raise InputError(
        f"dataloader.test.mapper.augmentations={augmentations}: only one ResizeShortestEdge, PlainResize or Letterbox without padding, of "
        "one size, or none, can be written into an exported model"
    )
