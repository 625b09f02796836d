"""Keeps backbones from looking for pre-trained weights that a checkpoint will replace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maskrcnn_ext.config.callables import iter_nodes, to_plain
from maskrcnn_ext.modeling.backbones.pretrained import FROM_CHECKPOINT

_TARGETS = ("maskrcnn_ext.TimmBackbone", "maskrcnn_ext.modeling.backbones.timm_backbone.TimmBackbone")


def expect_checkpoint(cfg: Any) -> Any:
    """Returns a copy of a config in which each TimmBackbone with pre-trained weights has ``pretrained=checkpoint``.

    Its norms stay frozen or live as they were trained, and neither the hub nor a file is needed.

    Args:
        cfg: a LazyConfig, or a yacs node of Detectron2.

    Example:
        >>> node = {"_target_": "maskrcnn_ext.TimmBackbone", "name": "convnext_tiny"}
        >>> expect_checkpoint(OmegaConf.create({"model": {"bottom_up": node}})).model.bottom_up.pretrained
        'checkpoint'
    """
    if not isinstance(cfg, DictConfig):
        cfg = cfg.clone()
        own = cfg.MODEL.get("MASKRCNN_EXT", {}).get("TimmBackbone")
        if own is not None and own.PRETRAINED is not False:
            own.PRETRAINED = FROM_CHECKPOINT
        return cfg
    cfg = cfg.copy()
    for key, node in iter_nodes(to_plain(cfg.get("model")), "model"):
        found = OmegaConf.select(cfg, key)
        if _is_timm(node) and found.get("pretrained", True) is not False:
            found.pretrained = FROM_CHECKPOINT
    return cfg


def _is_timm(node: Mapping[str, Any]) -> bool:
    target = node["_target_"]
    return (target if isinstance(target, str) else f"{target.__module__}.{target.__qualname__}") in _TARGETS
