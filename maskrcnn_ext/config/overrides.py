"""Strict overrides: a key must exist in the config or be an argument of something that the config calls.

Valid overrides have the same effect as with ``LazyConfig.apply_overrides``; misspelt ones are errors.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maskrcnn_ext.common.text import first_line, nearest, plural
from maskrcnn_ext.config.callables import (
    accepted_arguments,
    find_target,
    iter_nodes,
    named_arguments,
    target_name,
    to_plain,
    unknown_arguments,
)
from maskrcnn_ext.config.settings import add_missing_settings, takes_null
from maskrcnn_ext.config.value_kinds import check_value
from maskrcnn_ext.errors import InputError

_MISSING = object()


@dataclass(frozen=True)
class Override:
    """One parsed override.

    Attributes:
        text: the override as the user wrote it.
        key: the dotted key without the sign before it.
        value: the new value; None if the key is deleted.
        adds: written as ``+key=value``, so that the key need not be known.
        deletes: written as ``~key``.
    """

    text: str
    key: str
    value: Any
    adds: bool = False
    deletes: bool = False


def parse_override(text: str) -> Override:
    """Parses an override by hydra's grammar, as Detectron2 does. In addition, ``~key`` deletes a key.

    Raises:
        InputError: it cannot be parsed, or it lists several values for several runs.

    Example:
        >>> override = parse_override("train.max_iter=90_000")
        >>> override.key, override.value
        ('train.max_iter', 90000)
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    sign = text[:1]
    if any(text.count(a) != text.count(b) for a, b in ("[]", "{}", "()")):
        raise InputError(
            f"cannot read the override {text!r}: its brackets do not match; the shell splits at spaces: write no space, or quote the whole "
            "override, as in 'KEY=[1, 2]'"
        )
    if "=" not in text and sign != "~":
        raise InputError(f"cannot read the override {text!r}: expected KEY=VALUE, +KEY=VALUE or ~KEY")
    try:
        parsed = OverridesParser.create().parse_override(text)
        value = parsed.value()
    except Exception as error:  # hydra and antlr share no base class
        raise InputError(
            f"cannot read the override {text!r}: {first_line(error)}; quote special characters, as in KEY=\"'it=1'\""
        ) from error
    if parsed.is_sweep_override():
        raise InputError(f"the override {text!r} lists several values: write a list as {parsed.key_or_group}=[1,2]")
    if parsed.package is not None:
        raise InputError(f"cannot read the override {text!r}: a key has no @")
    if parsed.is_delete() and "=" in text:
        raise InputError(f"the override {text!r} deletes a key: write ~{parsed.key_or_group} without a value")
    return Override(text, parsed.key_or_group, value, parsed.is_add() or parsed.is_force_add(), parsed.is_delete())


def apply_overrides(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """Applies overrides in their order, and rejects those with unknown keys or unsuitable values.

    A key is known if

    * the config has it,
    * it is an argument of the ``_target_`` that its node has after all overrides,
    * it is a setting of this package below ``train``, or
    * it is inside an argument that the config leaves at its default.

    ``+key=value`` adds any other key, and ``~key`` deletes one.

    Args:
        cfg: a LazyConfig; changed in place, but not if an error is raised.
        overrides: ``key=value`` strings.

    Returns:
        `cfg`, equal to the result of ``LazyConfig.apply_overrides``.

    Raises:
        InputError: a key is unknown, a target cannot be imported or does not accept an argument of its node, or a value is of
            another kind than the one it replaces. The message is one line.

    Example:
        >>> cfg = OmegaConf.create({"train": {"max_iter": 90000}})
        >>> apply_overrides(cfg, ["train.max_itr=5"])
        Traceback (most recent call last):
        maskrcnn_ext.errors.InputError: 'train.max_itr=5': train.max_itr does not exist: did you mean train.max_iter? ...
    """
    parsed = [parse_override(text) for text in overrides]
    before, after = copy.deepcopy(cfg), copy.deepcopy(cfg)
    if OmegaConf.is_dict(before.get("train")):
        add_missing_settings(before)
    _reject_contradictions(parsed)
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
        except InputError as error:  # the checks below may find a better reason
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


def _reject_contradictions(parsed: list[Override]) -> None:
    """Raises if one override removes a node and another sets a key of it: the result would depend on their order."""
    for removal in parsed:
        if removal.deletes or removal.value is None:
            for other in parsed:
                if other.key.startswith(f"{removal.key}.") and not other.deletes:
                    raise InputError(
                        f"the overrides {removal.text!r} and {other.text!r} contradict each other: leave out one"
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
        raise InputError(f"cannot apply the override {override.text!r}: {first_line(error)}") from error


def _descend(node: Any, parts: list[str]) -> Any:
    for part in parts:
        node = _child(node, part)
    return node


def _child(node: Any, part: str) -> Any:
    """Returns an entry of a mapping or list with interpolations resolved, or _MISSING if it does not exist or cannot be resolved."""
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
    """Checks keys and values against the config before and after all overrides.

    The config "before" includes the settings of this package and the keys of ``+key=value`` overrides.
    """

    def __init__(self, before: DictConfig, after: DictConfig) -> None:
        self._before, self._after = before, after

    def check(self, override: Override, key: str, value: Any) -> None:
        """Checks one key and its value. A mapping is merged into the config, so each of its entries is checked as a key."""
        parts = key.split(".")
        parent = self._check_key(override, parts)
        old = _descend(self._before, parts)
        if isinstance(value, Mapping) and (OmegaConf.is_dict(old) or "_target_" in value):
            for name, entry in value.items():
                self.check(override, f"{key}.{name}", entry)
            return
        if value is None and takes_null(key):
            return
        argument = _has_target(parent) or OmegaConf.is_list(parent)
        parameter = _parameters(parent, parts[:-1]).get(parts[-1])
        if old is _MISSING:
            old = None if parameter is None or parameter.default is parameter.empty else parameter.default
        check_value(override.text, key, to_plain(old), value, argument=argument, parameter=parameter)

    def check_deletion(self, override: Override) -> None:
        """Raises if the key to delete does not exist."""
        parts = override.key.split(".")
        for index, part in enumerate(parts):
            parent = _descend(self._before, parts[:index])
            if _child(parent, part) is _MISSING:
                raise self._unknown_key_error(
                    override, parts, index, set(parent) if OmegaConf.is_dict(parent) else set()
                )

    def _check_key(self, override: Override, parts: list[str]) -> Any:
        """Checks every part of a key; returns the node that contains the last one."""
        old, new = self._before, self._after
        for index, part in enumerate(parts):
            parent, where = new, ".".join(parts[:index])
            if old is not None and old is not _MISSING and not OmegaConf.is_config(old):
                raise InputError(f"{override.text!r}: {where} is {old!r}, which has no keys")
            if OmegaConf.is_list(new):
                if _child(new, part) is _MISSING:
                    raise InputError(
                        f"{override.text!r}: {where} has {plural(len(new), 'entry', 'entries')}, from {where}.0 on"
                    )
            else:
                names, others = _names(old, new, parts[:index])
                if part not in names and not (others and not _is_typo(part, names)):
                    raise self._unknown_key_error(override, parts, index, names)
            old, new = _child(old, part), _child(new, part)
        return parent

    def _unknown_key_error(self, override: Override, parts: list[str], index: int, names: set[str]) -> InputError:
        key, prefix, rest = ".".join(parts), parts[:index], parts[index + 1 :]
        where, wrong = ".".join(prefix) or "the config", ".".join(parts[: index + 1])
        if not override.deletes and _child(_descend(self._before, prefix), parts[index]) is not _MISSING:
            target = target_name(to_plain(_descend(self._after, prefix))["_target_"])
            return InputError(
                f"{override.text!r}: {target} takes no {parts[index]}: it takes {', '.join(sorted(names))}"
            )
        similar = [".".join([*prefix, name, *rest]) for name in nearest(parts[index], names)]
        if not similar:
            paths = [path for path in _all_keys(to_plain(self._before)) if path.rpartition(".")[2] == parts[-1]]
            similar = nearest(key, paths, cutoff=0.7)
        advice = (
            f"did you mean {' or '.join(similar)}?"
            if similar
            else f"{where} has {', '.join(sorted(names)) or 'no keys'}"
        )
        add_anyway = "" if override.deletes else f" (+{override.text} adds it anyway)"
        return InputError(f"{override.text!r}: {wrong} does not exist: {advice}{add_anyway}")


def _names(old: Any, new: Any, path: list[str]) -> tuple[set[str], bool]:
    """Returns the known keys of a node, and whether it may have others."""
    is_section = OmegaConf.is_dict(old) and len(old) > 0 and not _has_target(old)
    if _has_target(new) and not is_section:
        target = find_target(to_plain(new["_target_"]), ".".join(path))
        accepts_any = accepted_arguments(target) is None
        present = {str(name) for name in old} if accepts_any and OmegaConf.is_dict(old) else set()
        return {*named_arguments(target), *present, "_target_"}, accepts_any
    if not is_section:
        return set(), True  # an argument at its default, or an empty mapping
    names, section = {str(name) for name in old}, ".".join(path)
    return names | set(_SECTIONS[section]()) if section in _SECTIONS else names, False


def _is_typo(name: str, known: set[str]) -> bool:
    """Returns whether a name is nearly a known one. Names that differ in digits only, such as res4_dilation, are not typos."""
    similar = nearest(name, known, count=1, cutoff=0.8)
    return bool(similar) and re.sub(r"\d", "", similar[0]) != re.sub(r"\d", "", name)


def _parameters(node: Any, path: list[str]) -> dict[str, inspect.Parameter]:
    return named_arguments(find_target(to_plain(node["_target_"]), ".".join(path))) if _has_target(node) else {}


def _ddp_arguments() -> list[str]:
    from torch.nn.parallel import DistributedDataParallel

    return [*(accepted_arguments(DistributedDataParallel) or ()), "fp16_compression"]


# Sections that are passed as keyword arguments: the config need not have all of them.
_SECTIONS: dict[str, Callable[[], list[str]]] = {"train.ddp": _ddp_arguments}


def _check_targets(parsed: list[Override], after: DictConfig) -> None:
    """Raises if a target that an override sets cannot be imported or does not accept the arguments of its node."""
    keys = [override.key for override in parsed if not override.deletes]
    for where, node in iter_nodes(to_plain(after)):
        if any(key == f"{where}._target_" or where == key or where.startswith(f"{key}.") for key in keys):
            target = find_target(node["_target_"], where)
            for line in unknown_arguments(where, node, target):
                raise InputError(line)


def _all_keys(tree: Any) -> list[str]:
    """Returns the keys of a config, and the arguments that it leaves at their defaults."""
    keys = list(_mapping_keys(tree))
    for where, node in iter_nodes(tree):
        with contextlib.suppress(InputError):  # of a target that cannot be imported
            keys += [f"{where}.{name}" for name in named_arguments(find_target(node["_target_"], where))]
    return keys


def _mapping_keys(tree: Any, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        yield f"{prefix}{key}"
        yield from _mapping_keys(value, f"{prefix}{key}.")
