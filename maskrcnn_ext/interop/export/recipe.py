"""The recipe of a model that is to be exported."""

from __future__ import annotations

from typing import Any

from detectron2.data import transforms as T
from PIL import Image
from torch import nn

from maskrcnn_ext.data.augmentation.resizing import PlainResize
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.graph import output_names
from maskrcnn_ext.interop.recipe import Recipe


def recipe_of(model: nn.Module, mapper: Any, classes: Any) -> Recipe:
    """Returns the recipe of a model.

    Args:
        model: a GeneralizedRCNN.
        mapper: of the config's ``dataloader.test``.
        classes: with the ``names``, ``category_ids`` and ``keypoint_names`` of the outputs.

    Raises:
        InputError: the mapper does more than to resize, or resizes in a way that is not known here.
    """
    resize, short_edge, long_edge = _resize(mapper.augmentations.augs)
    predictor = model.roi_heads.box_predictor
    predictor = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor  # Cascade R-CNN's last stage
    return Recipe(
        image_format=mapper.image_format,
        resize=resize,
        short_edge=short_edge,
        long_edge=long_edge,
        pixel_mean=tuple(model.pixel_mean.flatten().tolist()),
        pixel_std=tuple(model.pixel_std.flatten().tolist()),
        size_divisibility=model.backbone.size_divisibility,
        class_names=tuple(classes.names),
        category_ids=tuple(classes.category_ids),
        keypoint_names=tuple(classes.keypoint_names),
        output_names=output_names(model),
        score_threshold=predictor.test_score_thresh,
        nms_threshold=predictor.test_nms_thresh,
        max_detections=predictor.test_topk_per_image if predictor.test_topk_per_image >= 0 else 2**31 - 1,
    )


def _resize(augmentations: list[Any]) -> tuple[str, int, int]:
    """The rule, and the lengths of the short and at most of the long side."""
    if not augmentations:
        return "none", 0, 0
    first = augmentations[0]
    if len(augmentations) == 1 and isinstance(first, PlainResize):
        return first.style, first.short_edge_length, first.max_size
    if len(augmentations) == 1 and type(first) is T.ResizeShortestEdge and first.interp == Image.Resampling.BILINEAR:
        lengths = set(first.short_edge_length)
        if len(lengths) == 1:
            length = int(lengths.pop())
            return ("pillow", length, int(first.max_size)) if length else ("none", 0, 0)
    raise InputError(
        f"dataloader.test.mapper.augmentations={augmentations}: only one ResizeShortestEdge or PlainResize of one size, or none, can be "
        "written into an exported model"
    )
