"""Builds the parts of a training from its config: device, model, optimizer, loader, checkpointer and training loop."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine.defaults import create_ddp_model
from detectron2.modeling.roi_heads.keypoint_head import BaseKeypointRCNNHead
from omegaconf import DictConfig
from torch import nn

from maskrcnn_ext.config.checkpoint_weights import expect_checkpoint
from maskrcnn_ext.engine.acceleration import (
    amp_dtype,
    checkpoint_activations,
    compile_backbone,
    enable_channels_last_kernels,
    enable_winograd,
)
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.determinism import explain_nondeterminism
from maskrcnn_ext.engine.freezing import freeze_parameters
from maskrcnn_ext.engine.loader_faults import GuardedLoader
from maskrcnn_ext.engine.train_loop import Guard, Trainer
from maskrcnn_ext.engine.training_data import TrainingData
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.fit_check import check_fit

logger = logging.getLogger(__name__)


def choose_device(cfg: DictConfig) -> None:
    """Sets ``train.device`` to the CPU if the config asks for CUDA and the machine has none; several processes then use gloo."""
    if str(cfg.train.device).startswith("cuda") and not torch.cuda.is_available():
        logger.warning("train.device=%s, but this machine has no CUDA device: training on the CPU", cfg.train.device)
        cfg.train.device = "cpu"
    if cfg.train.device == "cpu":
        cfg.train.ddp.device_ids = None


def build_model(cfg: DictConfig) -> nn.Module:
    """Builds ``cfg.model`` on ``cfg.train.device``, not wrapped in DistributedDataParallel.

    Raises:
        InputError: parts of the model do not fit each other.
    """
    model: nn.Module = instantiate(cfg.model)
    check_fit(model)
    logger.info("Model:\n%s", model)
    model.to(cfg.train.device)
    if cfg.train.channels_last:
        model.to(memory_format=torch.channels_last)
        _keep_keypoint_heads_contiguous(model)
        if cfg.train.device == "cpu" and not cfg.train.compile:
            enable_channels_last_kernels(model)
    if cfg.train.winograd:
        logger.info("%d convolutions use Winograd's algorithm", enable_winograd(model, compiled=cfg.train.compile))
    return model


def _keep_keypoint_heads_contiguous(model: nn.Module) -> None:
    """Gives Detectron2's keypoint heads contiguous weights and inputs: their loss views logits (N, K, H, W) as (N K, H W)."""
    for module in model.modules():
        if isinstance(module, BaseKeypointRCNNHead):
            module.to(memory_format=torch.contiguous_format)
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))


def build_model_and_optimizer(cfg: DictConfig, *, resumes: bool = False) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Returns the model as it is trained, and its optimizer; sets ``optimizer.params.model``.

    Args:
        cfg: a LazyConfig with all keys of this package.
        resumes: whether a checkpoint will supply all weights.
    """
    model = build_model(expect_checkpoint(cfg) if resumes else cfg)
    freeze_parameters(model, cfg.train.freeze)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    checkpoint_activations(model, cfg.train.activation_checkpointing)
    if cfg.train.compile:
        compile_backbone(model)
    return create_ddp_model(model, **cfg.train.ddp), optimizer


def build_train_loader(cfg: DictConfig, data: TrainingData) -> Any:
    """Builds ``cfg.dataloader.train`` with the records that were read before."""
    node = cfg.dataloader.train
    return instantiate(node if data.records is None else {**{key: node[key] for key in node}, "dataset": data.records})


def make_checkpointer(cfg: DictConfig, model: nn.Module) -> Checkpointer:
    """Returns the checkpointer of ``train.output_dir``."""
    return Checkpointer(model, cfg.train.output_dir, allow_pickle=cfg.train.loading.allow_pickle)


def make_trainer(
    cfg: DictConfig, model: nn.Module, loader: GuardedLoader, optimizer: torch.optim.Optimizer, guard: Guard | None
) -> Trainer:
    """Returns the training loop with the precision, accumulation and clipping of ``cfg.train``, without hooks."""
    settings = cfg.train
    # A key apart, because Detectron2's script ends with an error if amp.enabled is set on a CPU.
    uses_amp = settings.amp.enabled or (settings.amp.on_cpu and settings.device == "cpu")
    return Trainer(
        model,
        loader,
        optimizer,
        amp=amp_dtype(settings.amp.dtype, settings.device) if uses_amp else None,
        accumulate=settings.accumulate,
        clip_grad=settings.clip_grad,
        guard=guard,
        explain_error=lambda error: explain_training_error(error, loader),
    )


def explain_training_error(error: BaseException, loader: GuardedLoader) -> InputError | None:
    """Returns a one-line explanation of an error that ended training; None if it is unknown."""
    if isinstance(error, torch.OutOfMemoryError):
        return InputError(
            f"{str(error).split('.')[0]}: use fewer images per iteration (dataloader.train.total_batch_size, with train.accumulate for the "
            "same batch), smaller images, train.amp.enabled=true, or train.activation_checkpointing=[backbone]"
        )
    return explain_nondeterminism(error) or loader.explain(error)


def batch_size(cfg: DictConfig) -> int:
    """Returns the number of images per iteration, of all processes together."""
    return int(cfg.dataloader.train.get("total_batch_size", 1)) * int(cfg.train.accumulate)
