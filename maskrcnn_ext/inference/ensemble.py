"""Predicts with several models of the same classes, whose predictions are fused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances
from omegaconf import DictConfig

from maskrcnn_ext.common.ranges import is_share
from maskrcnn_ext.common.text import short_list
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.base_predictor import BasePredictor
from maskrcnn_ext.inference.fusion import fuse_predictions
from maskrcnn_ext.inference.predictor import Predictor

_BATCHES_AT_ONCE = 4  # of which the images of one size share a batch


class EnsemblePredictor(BasePredictor):
    """Predicts with several models as :class:`Predictor` does with one: :func:`.fusion.fuse_predictions` joins their predictions.

    Attributes:
        members: the predictors of the models. Other attributes are those of the first; ``weights`` names all files.

    Example:
        ::

            predictor = maskrcnn_ext.EnsemblePredictor(["output/nuclei/fold_1", "output/nuclei/fold_2"])
            masks = predictor("image.png").pred_masks.to_dense()
    """

    def __init__(
        self,
        configs: Sequence[str | Path | DictConfig],
        *,
        device: str | None = None,
        dtype: str = "fp32",
        overrides: Sequence[str] = (),
        optimize: bool = False,
        calibrate: Sequence[Any] = (),
        agreement: float = 0.55,
    ) -> None:
        """Builds the models and loads their weights.

        Args:
            configs: of the models, each as for :class:`Predictor`.
            device: as for :class:`Predictor`.
            dtype: as for :class:`Predictor`.
            overrides: as for :class:`Predictor`.
            optimize: as for :class:`Predictor`.
            calibrate: as for :class:`Predictor`.
            agreement: least IoU of the masks of one object, above 0 and up to 1.

        Raises:
            InputError: as for :class:`Predictor`; the models have other classes or read images in other ways.
        """
        if not configs:
            raise InputError("an ensemble needs a model")
        if not is_share(agreement, above_zero=True):
            raise InputError(f"agreement={agreement}: expected an IoU above 0 and up to 1")
        options: dict[str, Any] = {"device": device, "dtype": dtype, "overrides": overrides}
        options |= {"optimize": optimize, "calibrate": calibrate}
        self.members = [Predictor(config, **options) for config in configs]
        first = self.members[0]
        for config, member in zip(configs, self.members, strict=True):
            if member.classes.names != first.classes.names:
                raise InputError(
                    f"{_name(config)} has the classes {short_list(member.classes.names)}, {_name(configs[0])} has "
                    f"{short_list(first.classes.names)}: an ensemble needs models of the same classes"
                )
            if member.image_format != first.image_format:
                raise InputError(
                    f"{_name(config)} reads images as {member.image_format}, {_name(configs[0])} as {first.image_format}: an ensemble "
                    "needs models of the same images"
                )
        weights = ", ".join(member.weights for member in self.members)
        super().__init__(first.model, first.classes, weights, first.image_format, first.read)
        self._agreement = agreement

    def __repr__(self) -> str:
        return f"EnsemblePredictor({', '.join(map(repr, self.members))})"

    def prepare(self, pixels: np.ndarray) -> dict[str, Any]:
        """Returns the ``members``' inputs for pixels (H, W, C)."""
        return {"members": [member.prepare(pixels) for member in self.members]}

    def run(self, inputs: Iterable[dict[str, Any]], *, batch_size: int = 1) -> Iterator[Instances]:
        """Predicts inputs that :meth:`prepare` returned; yields the fused instances in the same order."""
        remaining = iter(inputs)
        while chunk := list(islice(remaining, _BATCHES_AT_ONCE * batch_size)):
            found = [
                list(member.run((item["members"][number] for item in chunk), batch_size=batch_size))
                for number, member in enumerate(self.members)
            ]
            for image in zip(*found, strict=True):
                yield fuse_predictions(image, agreement=self._agreement)


def _name(config: str | Path | DictConfig) -> str:
    return "the config" if isinstance(config, DictConfig) else str(config)
