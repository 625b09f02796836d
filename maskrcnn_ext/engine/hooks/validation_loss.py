"""The training losses on the validation set: every image once, with the same random numbers each time, on any number of processes."""

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
from maskrcnn_ext.engine.preserved_model import device_of, preserved_model
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


class ValidationLoss(EvaluationHook):
    """Puts ``validation_loss/total_loss`` and ``validation_loss/<name of a loss>`` into the storage at every evaluation."""

    def __init__(
        self, period: int, model: nn.Module, build_loader: Callable[[], Iterable[list[dict[str, Any]]]]
    ) -> None:
        """Stands before the hooks that judge.

        Args:
            period: ``train.eval_period``.
            model: may be wrapped for several processes.
            build_loader: gives, once, this process's share of the validation images with ground truth, as :func:`validation_loader`.
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
            losses, count = validation_losses(self._model, self._loader)
        if comm.is_main_process():
            for name, value in losses.items():
                self.trainer.storage.put_scalar(f"validation_loss/{name}", value, smoothing_hint=False)
            listed = "  ".join(f"{name}: {value:.4g}" for name, value in losses.items())
            logger.info("Validation loss of %d images: %s", count, listed)


def validation_losses(model: nn.Module, loader: Iterable[list[dict[str, Any]]]) -> tuple[dict[str, float], int]:
    """Returns the mean over the images of all processes of each loss and, as ``total_loss``, of their sum; and the number of images.

    Each image goes through the model alone, in the weights' own precision and with random numbers of its own (a Mask R-CNN draws the
    anchors and proposals that count), so that the values depend neither on the batch size nor on the number of processes. The model is in
    training mode, as it gives losses there alone, but normalises with its running statistics and drops nothing out, as it does when it
    predicts: the statistics of one image are neither those of training nor those of prediction.

    Args:
        model: not wrapped for several processes; its mode changes, see :func:`preserved_model`.
        loader: this process's share.

    Raises:
        InputError: an image without ground truth.
    """
    model.train()
    for module in model.modules():
        if is_batch_norm(module) or is_dropout(module):
            module.eval()
    of_images: list[dict[str, float]] = []
    for batch in loader:
        for image in batch:
            if "image" in image and "instances" not in image:
                raise InputError(f"{image.get('file_name')}: has no annotations: a validation loss needs ground truth")
            with seeded(_seed_of(image), device=device_of(model)):
                losses = model([image])
            if isinstance(losses, Tensor):
                losses = {"total_loss": losses}
            of_images.append({name: float(value) for name, value in losses.items()})
    of_images = [losses for share in comm.all_gather(of_images) for losses in share]
    names = list(dict.fromkeys(name for losses in of_images for name in losses))
    means = {name: _mean([losses.get(name, 0.0) for losses in of_images]) for name in names}
    return {"total_loss": sum(means.values()), **means}, len(of_images)


def _mean(values: list[float]) -> float:
    # fsum is exact, hence the same in any order; it refuses what is not finite.
    total = math.fsum(values) if all(map(math.isfinite, values)) else sum(values)
    return total / len(values)


def _seed_of(image: dict[str, Any]) -> int:
    return zlib.crc32(f"{image.get('image_id')} {image.get('file_name')}".encode())


def validation_loader(cfg: DictConfig) -> Iterable[list[dict[str, Any]]]:
    """Builds the loader of the test images with ground truth: ``dataloader.test`` with the training's mapper, augmenting as in the test.

    Of a mapper around a mapper (Mosaic, copy-paste) the innermost counts, so that no images are mixed.

    Raises:
        InputError: the config's mappers have no ``augmentations`` to exchange.
    """
    mapper = cfg.dataloader.train.mapper
    while "augmentations" not in mapper and isinstance(mapper.get("mapper"), DictConfig):
        mapper = mapper.mapper
    for key, found in (("train", mapper), ("test", cfg.dataloader.test.mapper)):
        if not isinstance(found, DictConfig) or "augmentations" not in found:
            raise InputError(
                f"train.validation_loss=true takes dataloader.train.mapper with the augmentations of dataloader.test.mapper, but "
                f"dataloader.{key}.mapper has none: use Detectron2's DatasetMapper or maskrcnn_ext.SafeMapper, or set it to false"
            )
    mapper, test = copy.deepcopy(mapper), copy.deepcopy(cfg.dataloader.test)
    mapper.augmentations = instantiate(test.mapper.augmentations)
    test.mapper = WholeSet(instantiate(mapper))
    loader: Iterable[list[dict[str, Any]]] = instantiate(test)
    return loader


class WholeSet:
    """A training mapper for validation: an image that cannot be used is an error, and an augmentation that is random draws the same."""

    def __init__(self, mapper: Mapper) -> None:
        self._mapper = mapper

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        with seeded(_seed_of(record)):
            mapped = self._mapper(record)
        if mapped is None:  # Detectron2's loader would put another image in its place
            raise InputError(
                f"{record['file_name']}: cannot be used, so that there is no validation loss of the whole set; mend it or leave it out "
                "(`maskrcnn-ext check-data` tells what is wrong), or set train.validation_loss=false"
            )
        return mapped
