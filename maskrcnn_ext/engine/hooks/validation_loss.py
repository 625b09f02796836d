"""Computes the training losses on the validation set, with the same random numbers at every evaluation."""

from __future__ import annotations

import copy
import logging
import math
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from detectron2.config import instantiate
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import Tensor, nn

from maskrcnn_ext.common.distributed import unwrap_ddp
from maskrcnn_ext.common.random_state import seeded
from maskrcnn_ext.compat import is_batch_norm, is_dropout
from maskrcnn_ext.data.mapping.augmentation.mixing import Mapper
from maskrcnn_ext.engine.hooks.evaluation import EvaluationHook
from maskrcnn_ext.engine.loader_faults import GuardedLoader
from maskrcnn_ext.engine.preserved_model import device_of, preserved_model
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


class ValidationLoss(EvaluationHook):
    """Writes the scalars ``validation_loss/total_loss`` and ``validation_loss/<name of a loss>`` at every evaluation.

    Example::

        train.validation_loss=true
    """

    def __init__(
        self, period: int, model: nn.Module, build_loader: Callable[[], Iterable[list[dict[str, Any]]]]
    ) -> None:
        """Prepares; register this hook before those that read the metric.

        Args:
            period: ``train.eval_period``.
            model: may be wrapped in DistributedDataParallel.
            build_loader: returns a loader of this process's share of the validation images with ground truth, such as
                :func:`build_validation_loader`; called once.
        """
        super().__init__(period)
        self._model = unwrap_ddp(model)
        self._build_loader = build_loader
        self._loader: Iterable[list[dict[str, Any]]] | None = None

    def at_evaluation(self) -> None:
        """Computes the losses, on all processes together."""
        with preserved_model(self._model):
            if self._loader is None:
                self._loader = self._build_loader()
            losses, count = compute_validation_losses(self._model, self._loader)
        if comm.is_main_process():
            for name, value in losses.items():
                self.trainer.storage.put_scalar(f"validation_loss/{name}", value, smoothing_hint=False)
            listed = "  ".join(f"{name}: {value:.4g}" for name, value in losses.items())
            logger.info("Validation loss of %d images: %s", count, listed)


def compute_validation_losses(model: nn.Module, loader: Iterable[list[dict[str, Any]]]) -> tuple[dict[str, float], int]:
    """Returns the mean of each loss over the images of all processes, and the number of images.

    Each image is run by itself, in full precision and with its own random seed, since a Mask R-CNN samples anchors and proposals. So the
    values depend neither on the batch size nor on the number of processes. The model is in training mode, because it returns losses only
    then, but BatchNorm uses its running statistics and nothing is dropped out, as in inference: statistics of a single image would differ
    from those of training.

    Args:
        model: not wrapped in DistributedDataParallel; its mode is changed, see :func:`preserved_model`.
        loader: this process's share of the images.

    Returns:
        Means by name of the loss, with the sum as ``total_loss``; and the number of images of all processes.

    Raises:
        InputError: an image has no ground truth.
    """
    model.train()
    for module in model.modules():
        if is_batch_norm(module) or is_dropout(module):
            module.eval()
    image_losses: list[dict[str, float]] = []
    for batch in loader:
        for image in batch:
            if "image" in image and "instances" not in image:
                raise InputError(f"{image.get('file_name')} has no annotations: a validation loss needs ground truth")
            with seeded(_image_seed(image), device=device_of(model)):
                losses = model([image])
            if isinstance(losses, Tensor):
                losses = {"total_loss": losses}
            image_losses.append({name: float(value) for name, value in losses.items()})
    image_losses = [losses for share in comm.all_gather(image_losses) for losses in share]
    names = list(dict.fromkeys(name for losses in image_losses for name in losses))
    means = {name: _mean([losses.get(name, 0.0) for losses in image_losses]) for name in names}
    return {"total_loss": sum(means.values()), **means}, len(image_losses)


def _mean(values: list[float]) -> float:
    # fsum is exact and thus independent of the order; it raises on values that are not finite.
    total = math.fsum(values) if all(map(math.isfinite, values)) else sum(values)
    return total / len(values)


def _image_seed(image: dict[str, Any]) -> int:
    return zlib.crc32(f"{image.get('image_id')} {image.get('file_name')}".encode("utf-8", "surrogatepass"))


def build_validation_loader(cfg: DictConfig) -> Iterable[list[dict[str, Any]]]:
    """Returns a loader of the test images with ground truth: ``dataloader.test`` with the training mapper and the test augmentations.

    If mappers are nested (Mosaic, copy-paste), the innermost is used, so that images are not mixed.

    Raises:
        InputError: a mapper of the config has no ``augmentations`` to replace.
    """
    mapper = cfg.dataloader.train.mapper
    while "augmentations" not in mapper and isinstance(mapper.get("mapper"), DictConfig):
        mapper = mapper.mapper
    for key, found in (("train", mapper), ("test", cfg.dataloader.test.mapper)):
        if not isinstance(found, DictConfig) or "augmentations" not in found:
            raise InputError(
                f"train.validation_loss=true uses dataloader.train.mapper with the augmentations of dataloader.test.mapper, but "
                f"dataloader.{key}.mapper has none: use Detectron2's DatasetMapper or maskrcnn_ext.SafeMapper, or set it to false"
            )
    mapper, test = copy.deepcopy(mapper), copy.deepcopy(cfg.dataloader.test)
    mapper.augmentations = instantiate(test.mapper.augmentations)
    test.mapper = StrictMapper(instantiate(mapper))
    return GuardedLoader(instantiate(test))


class StrictMapper:
    """A training mapper for validation: raises on an unusable image, and seeds random augmentations by the image."""

    def __init__(self, mapper: Mapper) -> None:
        self._mapper = mapper

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        with seeded(_image_seed(record)):
            mapped = self._mapper(record)
        if mapped is None:  # Detectron2's loader would use another image instead
            raise InputError(
                f"{record['file_name']} cannot be used, but the validation loss needs all images: fix it or leave it out "
                "(`maskrcnn-ext check-data` reports the faults), or set train.validation_loss=false"
            )
        return mapped
