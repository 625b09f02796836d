"""Finds how many images fit into the memory, by trying a training step."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from maskrcnn_ext.common.random_state import preserved_random_state
from maskrcnn_ext.engine.building import build_model_and_optimizer, build_train_loader, choose_device, make_trainer
from maskrcnn_ext.engine.loader_faults import GuardedLoader
from maskrcnn_ext.engine.training_data import TrainingData, read_training_data
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


def fitting_images(cfg: DictConfig) -> int:
    """Returns the number of images of an iteration that fit into the memory: that of the config, halved as often as needed.

    Args:
        cfg: a LazyConfig with all keys of this package; changed in place.

    Raises:
        InputError: not even one image fits, or the data cannot be read.

    Example::

        images = fitting_images(load_config("my_config.py", []))
    """
    choose_device(cfg)
    data = read_training_data(cfg)

    def fits(images: int) -> bool:
        cfg.dataloader.train.total_batch_size = images
        try:
            _run_step(cfg, data)
        except torch.OutOfMemoryError:
            logger.info("%d images do not fit into the memory", images)
            torch.cuda.empty_cache()
            return False
        return True

    return halve_until(fits, cfg.dataloader.train.total_batch_size)


def halve_until(fits: Callable[[int], bool], images: int) -> int:
    """Returns the first of `images`, `images` / 2, ... that fits.

    Raises:
        InputError: one image does not fit.

    Example:
        >>> halve_until(lambda images: images <= 5, 16)
        4
    """
    while not fits(images):
        if images == 1:
            raise InputError("a training step with one image does not fit into the memory: use smaller crops or images")
        images //= 2
    return images


def _run_step(cfg: DictConfig, data: TrainingData) -> None:
    with preserved_random_state():
        model, optimizer = build_model_and_optimizer(cfg)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        loader = GuardedLoader(build_train_loader(cfg, data), cfg.train.loader_timeout)
        trainer = make_trainer(cfg, model, loader, optimizer, None)
        trainer.iter = 0
        with EventStorage(0) as trainer.storage:
            trainer.run_step()
    cfg.optimizer.params.model = None
