"""What is plainly wrong with a run's settings, said before its first iteration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import OmegaConf
from torch import nn, optim

from maskrcnn_ext.config.check import count_faults
from maskrcnn_ext.engine.data_hash import data_set_names

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Detectron2's baselines: SGD with momentum 0.9, 0.02 at 16 images; proportional to the images (arXiv:1706.02677).
_LR, _IMAGES, _MOMENTUM = 0.02, 16, 0.9
# Halving the batch alone is within what a run bears.
_TOO_MUCH = 2.0
# Adam's steps are about as long as its rate, whatever the gradients are: above this a weight can pass its own size in some steps.
_ADAM_LR = 5e-3
# Within so few iterations no warm-up has an effect. Runs that short are trials.
_WARM, _TRIAL = 10, 100


def preflight(cfg: DictConfig, model: nn.Module, optimizer: optim.Optimizer) -> list[str]:
    """Looks for settings that ruin a run. What the shipped configs do passes.

    Args:
        cfg: a LazyConfig with model, dataloader, optimizer, lr_multiplier and train; what it lacks is not looked at.
        model: as it was built from it.
        optimizer: of the model, before the first iteration.

    Returns:
        Warnings, each one line that says what to set.
    """
    checks = (_rate(cfg, optimizer), _warm_up(cfg, optimizer), _frozen(cfg, model), _detections(cfg, model))
    more = (_counts(cfg, model), _precision(cfg), _evaluation(cfg), _repeatable(cfg))
    return [warning for check in (*checks, *more) for warning in check]


def _base_lr(optimizer: optim.Optimizer) -> float:
    """The rate of most groups: some, such as those of biases, may have another one on purpose."""
    return Counter(float(g.get("initial_lr", g["lr"])) for g in optimizer.param_groups).most_common(1)[0][0]


def _key(cfg: DictConfig, key: str, default: Any = None) -> Any:
    found = OmegaConf.select(cfg, key)
    return default if found is None else found


def _linear_rule(cfg: DictConfig, optimizer: optim.Optimizer) -> tuple[float, float] | None:
    """The images of a step, and the rate for as many; None where the rule does not hold, or the batch size is not known."""
    images = _key(cfg, "dataloader.train.total_batch_size", 0) * _key(cfg, "train.accumulate", 1)
    if not isinstance(optimizer, optim.SGD) or not images:
        return None
    # Momentum m adds up to 1 / (1 - m) steps.
    scale = (1 - float(optimizer.param_groups[0]["momentum"])) / (1 - _MOMENTUM)
    return images, _LR * images / _IMAGES * scale


def _rate(cfg: DictConfig, optimizer: optim.Optimizer) -> Iterator[str]:
    lr, rule = _base_lr(optimizer), _linear_rule(cfg, optimizer)
    if rule and lr > _TOO_MUCH * rule[1] and not _key(cfg, "train.clip_grad"):
        yield (
            f"optimizer.lr={lr:g} is {lr / rule[1]:.1f} times what goes with {rule[0]:g} images a step, and will likely diverge: set "
            f"optimizer.lr={rule[1]:g} ({_LR} at {_IMAGES} images, proportionally), or train.clip_grad=1.0"
        )
    if isinstance(optimizer, optim.Adam | optim.AdamW) and lr > _ADAM_LR:
        yield (
            f"optimizer.lr={lr:g} is a rate for SGD; with {type(optimizer).__name__} it will likely diverge: set "
            "optimizer.lr to between 1e-4 and 1e-3"
        )


def _warm_up(cfg: DictConfig, optimizer: optim.Optimizer) -> Iterator[str]:
    max_iter, rule = _key(cfg, "train.max_iter", 0), _linear_rule(cfg, optimizer)
    if max_iter < _TRIAL or "lr_multiplier" not in cfg or not rule or _base_lr(optimizer) < rule[1] / _TOO_MUCH:
        return
    schedule = instantiate(cfg.lr_multiplier)
    if not isinstance(schedule, ParamScheduler):
        return
    share = schedule(_WARM / max_iter) / max(schedule(percent / 100) for percent in range(100))
    if share >= 0.5:
        length = f"warmup_length={min(0.1, 1000 / max_iter):.2g} (a share of train.max_iter)"
        where = (
            "lr_multiplier." if isinstance(schedule, WarmupParamScheduler) else "a WarmupParamScheduler around it with "
        )
        yield (
            f"the learning rate is at {share:.0%} after {_WARM} iterations: without a warm-up it will likely diverge: set {where}{length} "
            "and warmup_factor=0.001"
        )


def _frozen(cfg: DictConfig, model: nn.Module) -> Iterator[str]:
    if _key(cfg, "train.init_checkpoint"):
        return
    names = [name for name, module in model.named_modules() if isinstance(module, FrozenBatchNorm2d)]
    if names:
        yield (
            f"{len(names)} layers are FrozenBatchNorm2d ({names[0]}, ...), but train.init_checkpoint is empty: random weights under a "
            "frozen norm diverge: set train.init_checkpoint, or norm=BN in model.backbone and freeze_at=0"
        )
        return
    fixed = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if fixed:
        yield (
            f"{len(fixed)} parameters are frozen ({fixed[0]}, ...), but train.init_checkpoint is empty: they stay random: set "
            "train.init_checkpoint, or freeze_at=0"
        )


def _detections(cfg: DictConfig, model: nn.Module) -> Iterator[str]:
    evaluator = _key(cfg, "dataloader.evaluator")
    target = str(evaluator.get("_target_", "")) if OmegaConf.is_dict(evaluator) else ""
    counted = evaluator.get("max_dets_per_image") if target else None
    # Ours counts all where it is told no limit.
    if "COCOEvaluator" not in target or (counted is None and "maskrcnn_ext" in target):
        return
    counted = counted or 100
    for predictor in model.modules():
        given = getattr(predictor, "test_topk_per_image", None)
        if given is not None and given > counted:
            yield (
                f"model.roi_heads.box_predictor.test_topk_per_image={given}, but the evaluator counts {counted} detections an image: set "
                f"dataloader.evaluator.max_dets_per_image={given}"
            )
            return


def _counts(cfg: DictConfig, model: nn.Module) -> Iterator[str]:
    heads = getattr(model, "roi_heads", None)
    num_classes = getattr(heads, "num_classes", None)
    num_keypoints = getattr(getattr(heads, "keypoint_head", None), "num_keypoints", None)
    for name in data_set_names(cfg):
        yield from count_faults(name, num_classes=num_classes, num_keypoints=num_keypoints)


def _precision(cfg: DictConfig) -> Iterator[str]:
    on_cpu = str(_key(cfg, "train.device", "")) == "cpu"
    if on_cpu and _key(cfg, "train.amp.enabled", False) and _key(cfg, "train.amp.dtype") == "fp16":
        yield "train.amp.dtype=fp16 overflows sooner and is slower on a CPU: set train.amp.dtype=bf16, or train.amp.enabled=false"


def _evaluation(cfg: DictConfig) -> Iterator[str]:
    period, max_iter = _key(cfg, "train.eval_period", 0), _key(cfg, "train.max_iter", 0)
    if 0 < period < max_iter:
        return
    asked = [key for key in ("best", "early_stopping") if _key(cfg, f"train.{key}.metric")]
    if asked:
        yield (
            f"train.eval_period={period} evaluates only after the last of {max_iter} iterations, so that "
            f"{' and '.join(f'train.{key}' for key in asked)} can choose nothing: set train.eval_period={max(1, max_iter // 10)}"
        )


def _repeatable(cfg: DictConfig) -> Iterator[str]:
    if _key(cfg, "train.deterministic", False) and _key(cfg, "train.cudnn_benchmark", False):
        yield "train.cudnn_benchmark=true has no effect with train.deterministic=true: set it to false"
