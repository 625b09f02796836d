"""The dimensions of a tuning: those that fit a config, each with its range and the keys that it sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maskrcnn_ext.config.callables import find_target, named_arguments, target_name, to_plain

Value = float | str

_STEP = 32  # sides of resized images are multiples of it
_LOSSES = ("bce", "bce+dice", "bce+boundary")
_FCN = "maskrcnn_ext.FCNMaskHead"
# Heads that are Mask R-CNN's own, whose loss alone changes with `mask_loss`.
_STOCK_HEADS = ("MaskRCNNConvUpsampleHead", "FCNMaskHead")


@dataclass(frozen=True)
class Dimension:
    """One quantity that a tuning varies.

    Attributes:
        name: in a word or two, for tables.
        unchanged: the value that the config has.
        settings: returns the keys that a value sets.
        low: smallest number.
        high: largest number.
        log: whether numbers are drawn from a logarithmic scale.
        choices: of a quantity that is no number.
    """

    name: str
    unchanged: Value
    settings: Callable[[Any], dict[str, Any]]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()


def find_dimensions(cfg: DictConfig, pinned: Sequence[str] = ()) -> list[Dimension]:
    """Returns the dimensions that a config has.

    Args:
        cfg: a LazyConfig.
        pinned: keys that the user sets, which are not varied.

    Example:
        >>> from maskrcnn_ext.config.zoo import load_config
        >>> [dimension.name for dimension in find_dimensions(load_config("domains/nuclei.py", []))][:2]
        ['learning rate', 'weight decay']
    """
    return [
        dimension
        for dimension in _all_dimensions(cfg)
        if not any(_overlap(key, other) for key in dimension.settings(_other_value(dimension)) for other in pinned)
    ]


def changed_settings(dimensions: Sequence[Dimension], values: dict[str, Value]) -> dict[str, Any]:
    """Returns the keys that values set, without those of dimensions that keep the config's value."""
    found: dict[str, Any] = {}
    for dimension in dimensions:
        if values[dimension.name] != dimension.unchanged:
            found |= dimension.settings(values[dimension.name])
    return found


def _other_value(dimension: Dimension) -> Value:
    """Returns a value that differs from the config's, so that all keys of the dimension are known."""
    if dimension.choices:
        return next(choice for choice in dimension.choices if choice != dimension.unchanged)
    return dimension.high


def _overlap(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


def _all_dimensions(cfg: DictConfig) -> Iterator[Dimension]:
    for name, key, factor in (("learning rate", "optimizer.lr", 4.0), ("weight decay", "optimizer.weight_decay", 10.0)):
        value = OmegaConf.select(cfg, key)
        if isinstance(value, int | float) and value > 0:
            yield _number(name, key, float(value), value / factor, value * factor, log=True)
    resizes = list(_augmentations(cfg, "ResizeShortestEdge"))
    if any(key.startswith("dataloader.test.") for key, _ in resizes):
        yield Dimension("input size", 1.0, lambda factor: _resized(resizes, factor), 0.7, 1.5, log=True)
    yield from _losses(cfg)
    lights = [key for name in ("RandomBrightness", "RandomContrast") for key, _ in _augmentations(cfg, name)]
    if lights:
        light = round(float(OmegaConf.select(cfg, f"{lights[0]}.intensity_max")) - 1.0, 6)
        yield Dimension("brightness", light, lambda share: _lit(lights, share), 0.0, max(0.5, light))
    paste = OmegaConf.select(cfg, "dataloader.train.copy_paste.probability")
    if paste is not None:
        yield _number("copy-paste", "dataloader.train.copy_paste.probability", float(paste), 0.0, 0.9)
    predictor = "model.roi_heads.box_predictor"
    if OmegaConf.select(cfg, predictor) is not None:
        score = float(OmegaConf.select(cfg, f"{predictor}.test_score_thresh", default=0.05))
        low, high = min(0.005, score or 0.005), max(0.2, score)
        yield _number("score threshold", f"{predictor}.test_score_thresh", score or low, low, high, log=True)
        suppression = float(OmegaConf.select(cfg, f"{predictor}.test_nms_thresh", default=0.5))
        yield _number(
            "NMS IoU", f"{predictor}.test_nms_thresh", suppression, min(0.3, suppression), max(0.7, suppression)
        )


def _number(name: str, key: str, unchanged: float, low: float, high: float, *, log: bool = False) -> Dimension:
    return Dimension(name, unchanged, lambda value: {key: float(f"{value:.3g}")}, low, high, log)


def _augmentations(cfg: DictConfig, name: str) -> Iterator[tuple[str, Any]]:
    """Yields key and node of each augmentation of a class."""
    for split in ("train", "test"):
        key = f"dataloader.{split}.mapper.augmentations"
        nodes = OmegaConf.select(cfg, key)
        for index, node in enumerate(nodes if OmegaConf.is_list(nodes) else []):
            if OmegaConf.is_dict(node) and target_name(node.get("_target_", "")).rpartition(".")[2] == name:
                yield f"{key}.{index}", node


def _resized(resizes: list[tuple[str, Any]], factor: float) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, node in resizes:
        edges = to_plain(node.short_edge_length)
        scaled = [_multiple(edge * factor) for edge in (edges if isinstance(edges, list) else [edges])]
        settings[f"{key}.short_edge_length"] = scaled if isinstance(edges, list) else scaled[0]
        settings[f"{key}.max_size"] = round(node.max_size * factor)
    return settings


def _multiple(side: float) -> int:
    return max(_STEP, round(side / _STEP) * _STEP)


def _lit(keys: list[str], share: float) -> dict[str, Any]:
    ends = {"intensity_min": round(max(0.0, 1.0 - share), 3), "intensity_max": round(1.0 + share, 3)}
    return {f"{key}.{name}": value for key in keys for name, value in ends.items()}


def _losses(cfg: DictConfig) -> Iterator[Dimension]:
    """Yields the mask loss, and the weights of the losses of masks and boxes."""
    head_key, predictor_key = "model.roi_heads.mask_head", "model.roi_heads.box_predictor"
    head = OmegaConf.select(cfg, head_key)
    if head is not None:
        if target_name(head._target_).rpartition(".")[2] in _STOCK_HEADS:
            unchanged = str(head.get("mask_loss", _LOSSES[0]))
            choices = (*_LOSSES, *([unchanged] if unchanged not in _LOSSES else []))
            yield Dimension("mask loss", unchanged, lambda loss: _mask_loss(head_key, loss), choices=choices)
        if "loss_weight" in named_arguments(find_target(head._target_, head_key)):
            weight = float(head.get("loss_weight", 1.0))
            yield _number("mask loss weight", f"{head_key}.loss_weight", weight, weight / 2, weight * 2, log=True)
    predictor = OmegaConf.select(cfg, predictor_key)
    if predictor is not None and "loss_weight" not in predictor:
        yield Dimension("box loss weight", 1.0, lambda weight: _box_weight(predictor_key, weight), 0.5, 2.0, log=True)


def _mask_loss(key: str, loss: str) -> dict[str, Any]:
    return {f"{key}._target_": _FCN, f"{key}.mask_loss": loss}


def _box_weight(key: str, weight: float) -> dict[str, Any]:
    return {f"{key}.loss_weight": {"loss_cls": 1.0, "loss_box_reg": float(f"{weight:.3g}")}}
