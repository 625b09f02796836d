"""Warns of settings that will ruin a run, before its first iteration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.layers import FrozenBatchNorm2d
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import OmegaConf
from torch import nn, optim

from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.engine.checkpoint.load_report import own_weights
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Detectron2's baselines: SGD with momentum 0.9 and a learning rate of 0.02 at 16 images, proportional to the images (arXiv:1706.02677).
_LR, _IMAGES, _MOMENTUM = 0.02, 16, 0.9
# Factor above the baseline that a run tolerates, as after halving the batch.
_TOLERATED = 2.0
# Adam's steps are about as long as its rate, independent of the gradients: above this, few steps exceed the size of a weight.
_ADAM_LR = 5e-3
# A warm-up must still be effective after the first number of iterations. Runs shorter than the second are trials.
_WARM, _TRIAL = 10, 100


def preflight(cfg: DictConfig, model: nn.Module, optimizer: optim.Optimizer, *, resumes: bool = False) -> list[str]:
    """Checks for settings that ruin a run. The shipped configs pass.

    Args:
        cfg: a LazyConfig with model, dataloader, optimizer, lr_multiplier and train; missing keys are not checked.
        model: the model that was built from it.
        optimizer: the model's optimizer, before the first iteration.
        resumes: whether the weights are those of a checkpoint of the run.

    Returns:
        Warnings of one line, each with the override to set.

    Example::

        for warning in preflight(cfg, model, optimizer):
            logger.warning("%s", warning)
    """
    checks = (
        _check_learning_rate(cfg, optimizer),
        _check_warm_up(cfg, optimizer),
        () if resumes else _check_frozen_weights(cfg, model),
        _check_number_of_detections(cfg, model),
        _check_precision(cfg),
        _check_evaluation_period(cfg),
        _check_early_stopping(cfg),
        _check_test_set(cfg),
        _check_reproducibility(cfg),
    )
    return [warning for check in checks for warning in check]


def _base_lr(optimizer: optim.Optimizer) -> float:
    """Returns the learning rate of most parameter groups; some groups, such as biases, may differ on purpose."""
    return Counter(float(g.get("initial_lr", g["lr"])) for g in optimizer.param_groups).most_common(1)[0][0]


def _select(cfg: DictConfig, key: str, default: Any = None) -> Any:
    found = OmegaConf.select(cfg, key)
    return default if found is None else found


def _linear_rule(cfg: DictConfig, optimizer: optim.Optimizer) -> tuple[float, float] | None:
    """Returns the images per step and their learning rate by the linear rule; None for other optimizers or an unknown batch size."""
    images = _select(cfg, "dataloader.train.total_batch_size", 0) * _select(cfg, "train.accumulate", 1)
    if not isinstance(optimizer, optim.SGD) or not images:
        return None
    # With momentum m, a gradient contributes to 1 / (1 - m) steps.
    scale = (1 - float(optimizer.param_groups[0]["momentum"])) / (1 - _MOMENTUM)
    return images, _LR * images / _IMAGES * scale


def _check_learning_rate(cfg: DictConfig, optimizer: optim.Optimizer) -> Iterator[str]:
    lr, rule = _base_lr(optimizer), _linear_rule(cfg, optimizer)
    if rule and lr > _TOLERATED * rule[1] and not _select(cfg, "train.clip_grad"):
        yield (
            f"optimizer.lr={lr:g} is {lr / rule[1]:.1f} times the usual rate for {rule[0]:g} images per step, and will likely diverge: set "
            f"optimizer.lr={rule[1]:g} ({_LR} at {_IMAGES} images, proportional to the images), or train.clip_grad=1.0"
        )
    if isinstance(optimizer, optim.Adam | optim.AdamW) and lr > _ADAM_LR:
        yield (
            f"optimizer.lr={lr:g} is a rate for SGD; with {type(optimizer).__name__} it will likely diverge: set "
            "optimizer.lr to between 1e-4 and 1e-3"
        )


def _schedule(cfg: DictConfig) -> ParamScheduler | None:
    """Returns the schedule of the learning rate; None for one of another kind."""
    schedule = instantiate(cfg.lr_multiplier) if "lr_multiplier" in cfg else None
    return schedule if isinstance(schedule, ParamScheduler) else None


def _check_warm_up(cfg: DictConfig, optimizer: optim.Optimizer) -> Iterator[str]:
    max_iter, rule = _select(cfg, "train.max_iter", 0), _linear_rule(cfg, optimizer)
    if max_iter < _TRIAL or not rule or _base_lr(optimizer) < rule[1] / _TOLERATED:
        return
    schedule = _schedule(cfg)
    if schedule is None:
        return
    share = schedule(_WARM / max_iter) / max(schedule(percent / 100) for percent in range(100))
    if share >= 0.5:
        length = f"warmup_length={min(0.1, 1000 / max_iter):.2g} (a fraction of train.max_iter)"
        where = (
            "lr_multiplier." if isinstance(schedule, WarmupParamScheduler) else "a WarmupParamScheduler around it with "
        )
        yield (
            f"the learning rate is at {share:.0%} after {_WARM} iterations: without a warm-up it will likely diverge: set {where}{length} "
            "and warmup_factor=0.001"
        )


def _check_frozen_weights(cfg: DictConfig, model: nn.Module) -> Iterator[str]:
    if _select(cfg, "train.init_checkpoint"):
        return
    own = own_weights(model)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, FrozenBatchNorm2d) and not name.startswith(own)
    ]
    if names:
        yield (
            f"{len(names)} layers are FrozenBatchNorm2d ({names[0]}, ...), but train.init_checkpoint is empty: random weights under a "
            "frozen norm diverge: set train.init_checkpoint, or norm=BN in model.backbone and freeze_at=0"
        )
        return
    fixed = [
        name for name, parameter in model.named_parameters() if not parameter.requires_grad and not name.startswith(own)
    ]
    if fixed:
        yield (
            f"{len(fixed)} parameters are frozen ({fixed[0]}, ...), but train.init_checkpoint is empty, so they stay random: set "
            "train.init_checkpoint, or freeze_at=0"
        )


def _check_number_of_detections(cfg: DictConfig, model: nn.Module) -> Iterator[str]:
    evaluator = _select(cfg, "dataloader.evaluator")
    target = str(evaluator.get("_target_", "")) if OmegaConf.is_dict(evaluator) else ""
    counted = evaluator.get("max_dets_per_image") if target else None
    # This package's evaluator counts all detections by default.
    if "COCOEvaluator" not in target or (counted is None and "maskrcnn_ext" in target):
        return
    counted = counted or 100
    for predictor in model.modules():
        kept = getattr(predictor, "test_topk_per_image", None)
        if kept is not None and kept > counted:
            yield (
                f"model.roi_heads.box_predictor.test_topk_per_image={kept}, but the evaluator counts {counted} detections per image: set "
                f"dataloader.evaluator.max_dets_per_image={kept}"
            )
            return


def _check_precision(cfg: DictConfig) -> Iterator[str]:
    on_cpu = str(_select(cfg, "train.device", "")) == "cpu"
    if on_cpu and _select(cfg, "train.amp.enabled", False) and _select(cfg, "train.amp.dtype") == "fp16":
        yield "train.amp.dtype=fp16 overflows sooner and is slower on a CPU: set train.amp.dtype=bf16, or train.amp.enabled=false"


def _check_evaluation_period(cfg: DictConfig) -> Iterator[str]:
    period, max_iter = _select(cfg, "train.eval_period", 0), _select(cfg, "train.max_iter", 0)
    # `train.time` makes as few evaluations as there is time for: more of them would leave less for the training.
    if period > 0 and (period < max_iter or _select(cfg, "train.time") is not None):
        return
    keys = [key for key in ("best", "early_stopping") if _select(cfg, f"train.{key}.metric")]
    if keys:
        yield (
            f"train.eval_period={period} evaluates only after the last of {max_iter} iterations, so "
            f"{' and '.join(f'train.{key}' for key in keys)} cannot have an effect: set train.eval_period={max(1, max_iter // 10)}"
        )


def _check_early_stopping(cfg: DictConfig) -> Iterator[str]:
    period, max_iter = _select(cfg, "train.eval_period", 0), _select(cfg, "train.max_iter", 0)
    metric, patience = (_select(cfg, f"train.early_stopping.{key}") for key in ("metric", "patience"))
    if not metric or not patience or not 0 < period < max_iter:
        return
    schedule = _schedule(cfg)
    if schedule is None:
        return
    rates = [schedule(percent / 100) for percent in range(100)]
    highest = rates.index(max(rates))
    fall = next((percent for percent in range(highest, 100) if rates[percent] < rates[highest] / 2), 0)
    least = math.ceil(fall / 100 * max_iter / period)
    if patience < least:
        yield (
            f"train.early_stopping.patience={patience} can end the run before its learning rate falls, at {fall}% of the iterations, and "
            f"metrics rise most after that: set train.early_stopping.patience={least}"
        )


def _check_test_set(cfg: DictConfig) -> Iterator[str]:
    names = [_select(cfg, f"dataloader.{part}.dataset.names", []) for part in ("train", "test")]
    train, test = ([each] if isinstance(each, str) else list(each) for each in names)
    trained = {_data_of(name) for name in train}
    for name in test:
        if _data_of(name) in trained:
            yield (
                f"dataloader.test.dataset.names has {name}, which is trained on, so results on it say nothing about other images: "
                "set dataloader.test.dataset.names to another data set or split, such as yolo:data.yaml@val"
            )


def _data_of(name: str) -> str:
    """Returns a text that is equal for names of the same data."""
    try:
        ensure_registered(name)
    except InputError:  # reported when the data set is read
        return name
    return str(MetadataCatalog.get(name).get("source", name))


def _check_reproducibility(cfg: DictConfig) -> Iterator[str]:
    if _select(cfg, "train.deterministic", False) and _select(cfg, "train.cudnn_benchmark", False):
        yield "train.cudnn_benchmark=true has no effect with train.deterministic=true: set it to false"
