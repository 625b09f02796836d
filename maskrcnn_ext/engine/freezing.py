"""Freezes parameters by name (``train.freeze``): they get no gradient, and frozen batch normalisations keep their statistics."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache

from torch import nn

from maskrcnn_ext.common.text import did_you_mean, plural
from maskrcnn_ext.compat import change_class, is_batch_norm
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


class _AlwaysEval(nn.Module):
    """A module that normalises with its running statistics also in training, and so does not change them."""

    def train(self, mode: bool = True) -> _AlwaysEval:  # noqa: ARG002
        return super().train(False)


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freezes the parameters whose names match a pattern, and logs how many.

    A batch normalisation whose parameters are all frozen normalises with its running statistics, which it keeps.

    Args:
        model: changed in place, before the optimizer is built. The names in its state dict do not change.
        patterns: of ``fnmatch``, case-sensitive, such as ``backbone.*`` or ``*.bias``; ``*`` also matches dots.

    Raises:
        InputError: a pattern matches nothing, or nothing is left to train.

    Example::

        train.freeze=["backbone.*"]
    """
    if not patterns:
        return
    parameters = dict(model.named_parameters())
    names = [*parameters, *(name for name, _ in model.named_buffers())]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"train.freeze: no parameter matches {pattern!r}: {_advice(pattern, names)}")
    matched = {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
    for name in matched & parameters.keys():
        parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise InputError(f"train.freeze={list(patterns)} freezes every parameter: nothing is left to train")
    norms = 0
    for name, module in model.named_modules():
        if is_batch_norm(module) and _is_frozen(module, name, matched):
            change_class(module, _always_eval(module.__class__)).eval()
            norms += 1
    frozen = [parameters[name].numel() for name in parameters if name in matched]
    total = sum(parameter.numel() for parameter in parameters.values())
    logger.info(
        "train.freeze: %d of %s are frozen (%.1f of %.1f million weights), and %s",
        len(frozen),
        plural(len(parameters), "parameter"),
        sum(frozen) / 1e6,
        total / 1e6,
        plural(norms, "batch normalisation"),
    )


def _is_frozen(norm: nn.Module, name: str, matched: set[str]) -> bool:
    own = [f"{name}.{key}" for key, _ in norm.named_parameters()]
    return f"{name}.running_mean" in matched or (bool(own) and matched.issuperset(own))


@cache
def _always_eval(cls: type) -> type[nn.Module]:
    return type(f"Frozen{cls.__name__}", (_AlwaysEval, cls), {})


def _advice(pattern: str, names: Sequence[str]) -> str:
    """Returns patterns that match, for one that does not: ``backbone.*`` for ``backbone``, or the most similar modules' names."""
    if any(name.startswith(f"{pattern}.") for name in names):
        return f"did you mean {pattern}.*?"
    parts = [name.split(".") for name in names]
    modules = dict.fromkeys(".".join(part[:length]) for part in parts for length in range(1, len(part)))
    similar = did_you_mean(pattern, [*(f"{module}.*" for module in modules), *names])
    return (
        similar or f"the model's parts are {', '.join(dict.fromkeys(part[0] for part in parts))}, as in {parts[0][0]}.*"
    )
