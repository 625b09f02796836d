"""Overrides that stop at a typo: a key must be in the config, or be an argument of what the config calls.

What is applied is what ``LazyConfig.apply_overrides`` applies; this only says no before it does.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maskrcnn_ext.config import settings
from maskrcnn_ext.config.callables import find_target, known_parameters, name_of, nodes, parameters_of, refused
from maskrcnn_ext.config.value_kinds import check_value, plain
from maskrcnn_ext.errors import InputError

_MISSING = object()


@dataclass(frozen=True)
class Override:
    """One override.

    Attributes:
        text: as it was given.
        key: dotted, without the sign before it.
        value: None where the key is deleted.
        adds: written ``+key=value``: the key need not be known.
        deletes: written ``~key``.
    """

    text: str
    key: str
    value: Any
    adds: bool = False
    deletes: bool = False


def parse(text: str) -> Override:
    """Reads an override as Detectron2 does, by hydra's grammar; ``~key`` deletes besides.

    Raises:
        InputError: it cannot be read, or means several runs.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    sign = text[:1]
    if "=" not in text and sign != "~":
        raise InputError(f"cannot read the override {text!r}: expected KEY=VALUE, +KEY=VALUE or ~KEY")
    try:
        parsed = OverridesParser.create().parse_override(text)
        value = parsed.value()
    except Exception as error:  # hydra and antlr share no base class
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot read the override {text!r}: {reason}; quote what is special, as in KEY=\"'it=1'\""
        ) from error
    if parsed.is_sweep_override():
        raise InputError(f"the override {text!r} means several values: write a list as {parsed.key_or_group}=[1,2]")
    if parsed.package is not None:
        raise InputError(f"cannot read the override {text!r}: there is no @ in a key")
    if parsed.is_delete() and "=" in text:
        raise InputError(f"the override {text!r} deletes a key: write ~{parsed.key_or_group} without a value")
    return Override(text, parsed.key_or_group, value, parsed.is_add() or parsed.is_force_add(), parsed.is_delete())


def apply(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """Applies overrides strictly, in their order.

    A key is known where the config has it, where it is an argument of the ``_target_`` that its node has in the end, where it is one of
    ours below ``train``, or where it lies in an argument that the config leaves at its default. ``+key=value`` adds any other on
    purpose, and ``~key`` deletes one.

    Args:
        cfg: a LazyConfig; changed in place, unless there is an error.
        overrides: ``key=value``.

    Returns:
        `cfg`, equal to what ``LazyConfig.apply_overrides`` makes of it.

    Raises:
        InputError: an unknown key, a target that cannot be imported or does not take what its node holds, a value of another kind than
            the one it replaces. One line.
    """
    parsed = [parse(text) for text in overrides]
    before, after = copy.deepcopy(cfg), copy.deepcopy(cfg)
    if OmegaConf.is_dict(before.get("train")):
        settings.complete(before)
    _refuse_contradictions(parsed)
    for override in parsed:
        if override.adds:
            _apply_one(before, override)
    checker = _Checker(before, after)
    failures = []
    for override in parsed:
        if override.deletes:
            checker.check_deletion(override)
        try:
            _apply_one(after, override)
        except InputError as error:  # the checks may know better why
            failures.append(error)
    for override in parsed:
        if not (override.deletes or override.adds):
            checker.check(override, override.key, override.value)
    for failure in failures:
        raise failure
    _check_targets(parsed, after)
    for override in parsed:
        _apply_one(cfg, override)
    return cfg


def _refuse_contradictions(parsed: list[Override]) -> None:
    """A node cannot be switched off and set up: which of the two counts would depend on their order."""
    for off in parsed:
        if off.deletes or off.value is None:
            for other in parsed:
                if other.key.startswith(f"{off.key}.") and not other.deletes:
                    raise InputError(
                        f"the overrides {off.text!r} and {other.text!r} contradict each other: leave out one"
                    )


def _apply_one(cfg: DictConfig, override: Override) -> None:
    if override.deletes:
        *parts, name = override.key.split(".")
        parent = _descend(cfg, parts)
        if _child(parent, name) is not _MISSING:
            del parent[int(name) if OmegaConf.is_list(parent) else name]
        return
    try:
        LazyConfig.apply_overrides(cfg, [override.text])
    except Exception as error:  # hydra and omegaconf share no base class
        reason = str(error).strip("'\" ").splitlines()[:1]
        raise InputError(f"cannot apply the override {override.text!r}: {reason[0] if reason else error!r}") from error


def _descend(node: Any, parts: list[str]) -> Any:
    for part in parts:
        node = _child(node, part)
    return node


def _child(node: Any, part: str) -> Any:
    """The entry of a mapping or list, with interpolations resolved; _MISSING where there is none, or where it leads nowhere."""
    try:
        if OmegaConf.is_dict(node):
            return node[part] if part in node.keys() else _MISSING  # noqa: SIM118 (`in node` is false for some interpolations)
        if OmegaConf.is_list(node) and part.isdigit():
            return node[int(part)]
    except (OmegaConfBaseException, IndexError):
        pass
    return _MISSING


def _has_target(node: Any) -> bool:
    return OmegaConf.is_dict(node) and "_target_" in node


class _Checker:
    """Looks keys up in the config as it was, completed by our keys and by what is added on purpose, and as it becomes."""

    def __init__(self, before: DictConfig, after: DictConfig) -> None:
        self._before, self._after = before, after

    def check(self, override: Override, key: str, value: Any) -> None:
        """Checks one key and its value; a mapping is merged, so that each of its entries is a key."""
        parts = key.split(".")
        parent = self._check_key(override, parts)
        old = _descend(self._before, parts)
        if isinstance(value, Mapping) and (OmegaConf.is_dict(old) or "_target_" in value):
            for name, entry in value.items():
                self.check(override, f"{key}.{name}", entry)
            return
        argument = _has_target(parent) or OmegaConf.is_list(parent)
        parameter = _parameters(parent, parts[:-1]).get(parts[-1])
        if old is _MISSING:
            old = None if parameter is None or parameter.default is parameter.empty else parameter.default
        check_value(override.text, key, plain(old), value, argument=argument, parameter=parameter)

    def check_deletion(self, override: Override) -> None:
        """Checks that there is what is to be deleted."""
        parts = override.key.split(".")
        for index, part in enumerate(parts):
            parent = _descend(self._before, parts[:index])
            if _child(parent, part) is _MISSING:
                raise self._unknown(override, parts, index, set(parent) if OmegaConf.is_dict(parent) else set())

    def _check_key(self, override: Override, parts: list[str]) -> Any:
        """Checks every part of a key; returns the node that holds the last one."""
        old, new = self._before, self._after
        for index, part in enumerate(parts):
            parent, where = new, ".".join(parts[:index])
            if old is not None and old is not _MISSING and not OmegaConf.is_config(old):
                raise InputError(f"{override.text!r}: {where} is {old!r}, which has no keys")
            if OmegaConf.is_list(new):
                if _child(new, part) is _MISSING:
                    raise InputError(f"{override.text!r}: {where} has {len(new)} entries, from {where}.0 on")
            else:
                names, others = _names(old, new, parts[:index])
                if part not in names and not (others and not _is_slip(part, names)):
                    raise self._unknown(override, parts, index, names)
            old, new = _child(old, part), _child(new, part)
        return parent

    def _unknown(self, override: Override, parts: list[str], index: int, names: set[str]) -> InputError:
        key, prefix, rest = ".".join(parts), parts[:index], parts[index + 1 :]
        where, wrong = ".".join(prefix) or "the config", ".".join(parts[: index + 1])
        if not override.deletes and _child(_descend(self._before, prefix), parts[index]) is not _MISSING:
            target = name_of(plain(_descend(self._after, prefix))["_target_"])
            return InputError(
                f"{override.text!r}: {target} takes no {parts[index]}: it takes {', '.join(sorted(names))}"
            )
        near = [".".join([*prefix, name, *rest]) for name in difflib.get_close_matches(parts[index], names, n=3)]
        if not near:
            paths = [path for path in _paths(plain(self._before)) if path.rpartition(".")[2] == parts[-1]]
            near = difflib.get_close_matches(key, paths, n=3, cutoff=0.7)
        advice = (
            f"did you mean {' or '.join(near)}?" if near else f"{where} has {', '.join(sorted(names)) or 'no keys'}"
        )
        on_purpose = "" if override.deletes else f" (+{override.text} adds it on purpose)"
        return InputError(f"{override.text!r}: there is no {wrong}: {advice}{on_purpose}")


def _names(old: Any, new: Any, path: list[str]) -> tuple[set[str], bool]:
    """The keys that a node may have, as far as they are known, and whether it may have others."""
    is_section = OmegaConf.is_dict(old) and len(old) > 0 and not _has_target(old)
    if _has_target(new) and not is_section:
        target = find_target(plain(new["_target_"]), ".".join(path))
        takes_any = parameters_of(target) is None
        held = {str(name) for name in old} if takes_any and OmegaConf.is_dict(old) else set()
        return {*known_parameters(target), *held, "_target_"}, takes_any
    if not is_section:
        return set(), True  # an argument that is left at its default, or that holds nothing yet
    names, section = {str(name) for name in old}, ".".join(path)
    return names | set(_SECTIONS[section]()) if section in _SECTIONS else names, False


def _is_slip(name: str, known: set[str]) -> bool:
    """Whether a name that may be right is so like a known one that it is not; res4_dilation beside res5_dilation is."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return bool(near) and re.sub(r"\d", "", near[0]) != re.sub(r"\d", "", name)


def _parameters(node: Any, path: list[str]) -> dict[str, inspect.Parameter]:
    return known_parameters(find_target(plain(node["_target_"]), ".".join(path))) if _has_target(node) else {}


def _ddp_arguments() -> list[str]:
    from torch.nn.parallel import DistributedDataParallel

    return [*(parameters_of(DistributedDataParallel) or ()), "fp16_compression"]


# What a section is handed to as keywords: the config need not have all of them.
_SECTIONS: dict[str, Callable[[], list[str]]] = {"train.ddp": _ddp_arguments}


def _check_targets(parsed: list[Override], after: DictConfig) -> None:
    """Checks the nodes whose target an override sets: it is there, and takes what the node holds."""
    keys = [override.key for override in parsed if not override.deletes]
    for where, node in nodes(plain(after)):
        if any(key == f"{where}._target_" or where == key or where.startswith(f"{key}.") for key in keys):
            target = find_target(node["_target_"], where)
            for line in refused(where, node, target):
                raise InputError(line)


def _paths(tree: Any, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        yield f"{prefix}{key}"
        yield from _paths(value, f"{prefix}{key}.")
