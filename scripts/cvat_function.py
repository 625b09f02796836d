"""A trained model as an auto-annotation function of CVAT (cvat-sdk, https://docs.cvat.ai/docs/api_sdk/sdk/auto-annotation/).

    pip install cvat-cli
    cvat-cli --server-host https://app.cvat.ai task auto-annotate 137 --function-file scripts/cvat_function.py -p run=str:output/nuclei

The labels of the task need the names of the model's classes. Objects are masks, or polygons with --conv-mask-to-poly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cvat_sdk.auto_annotation as cvataa
from cvat_sdk.masks import encode_mask

from maskrcnn_ext import Predictor
from maskrcnn_ext.data.writers.outlines import outlines_of_mask

DEFAULT_THRESHOLD = 0.5


class MaskRCNNFunction:
    """Detects objects with a run or a config and its weights; see :class:`maskrcnn_ext.Predictor`."""

    def __init__(self, run: str, weights: str | None = None, device: str | None = None) -> None:
        """Loads the model."""
        self._predictor = Predictor(run, weights, device=device)
        labels = [
            cvataa.label_spec(name, index, type="mask") for index, name in enumerate(self._predictor.classes.names)
        ]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context: Any, image: Any) -> list[Any]:
        """Returns the shapes of a PIL image."""
        threshold = DEFAULT_THRESHOLD if context.conf_threshold is None else context.conf_threshold
        found = self._predictor(image, threshold=threshold)
        if not len(found):
            return []
        pairs = zip(found.pred_classes.tolist(), found.pred_masks, strict=True)
        return [shape for label, mask in pairs for shape in _shapes(context, label, mask.numpy())]


def _shapes(context: Any, label: int, mask: Any) -> Iterator[Any]:
    if not mask.any():
        return
    if context.conv_mask_to_poly:
        yield from (cvataa.polygon(label, outline) for outline in outlines_of_mask(mask))
    else:
        yield cvataa.mask(label, encode_mask(mask))


create = MaskRCNNFunction
