"""Writes a plan as a LazyConfig: it imports a shipped config and states its differences, each with the figure behind it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from maskrcnn_ext.config.plan.choice import Call, Choice, Plan, Target
from maskrcnn_ext.config.settings import TRAIN
from maskrcnn_ext.errors import InputError

_WIDTH = 110
_INDENT = "    "
PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
_TRANSFORMS = "detectron2.data.transforms"
# Sections of `train` that a base config does not have.
_NEW_SECTIONS = {f"train.{name}" for name, value in TRAIN.items() if isinstance(value, dict) and name != "amp"}


def write_config(plan: Plan, *, command: str = "maskrcnn-ext configure") -> str:
    """Returns the text of a LazyConfig. It runs under ``train-net`` and under Detectron2's ``tools/lazyconfig_train_net.py``.

    Args:
        plan: what to write.
        command: the command line that made the plan, for the first lines.

    Raises:
        InputError: a name of the data cannot be part of a Python file.

    Example::

        Path("my_config.py").write_text(write_config(plan(fingerprint("balloon_train"), inspect_machine())))
    """
    body = [line for choice in plan.choices for line in _choice_lines(choice)]
    lines = [
        f'"""{docstring_text(plan.data)}: {plan.summary}.',
        "",
        *textwrap.wrap(
            f"Planned by `{docstring_text(command)}`. Each comment has the figure behind the lines below it.", _WIDTH
        ),
        '"""',
        "",
        *_imports(plan),
        f'_base = get_config("{plan.base}")',
        *(f"{part} = _base.{part}" for part in PARTS),
        *body,
        "",
    ]
    return "\n".join(lines)


def docstring_text(text: str) -> str:
    """Returns a text as a docstring can hold it.

    Raises:
        InputError: it has characters that cannot.
    """
    if not text.isprintable():
        raise InputError(f"{text!r} has characters that a config cannot name: rename the data")
    return text.replace("\\", "/").replace('"""', "'''")


def _imports(plan: Plan) -> Iterator[str]:
    targets = {target for choice in plan.choices for target in _targets(choice.settings)}
    has_calls = any(_has_call(choice.settings) for choice in plan.choices)
    if any(target.startswith(_TRANSFORMS) for target in targets):
        yield f"import {_TRANSFORMS} as T"
    if has_calls:
        yield "from detectron2.config import LazyCall as L"
        yield ""
    names = sorted(
        {"get_config", *(target.rpartition(".")[2] for target in targets if not target.startswith(_TRANSFORMS))}
    )
    names.sort(key=lambda name: (name.islower(), name))
    yield f"from maskrcnn_ext import {', '.join(names)}"
    yield ""


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, Target):
        yield value.path
    elif isinstance(value, Call):
        yield value.target
        yield from _targets(value.arguments)
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _targets(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _targets(entry)


def _has_call(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_call, value.values()))
    return isinstance(value, Call) or (isinstance(value, list | tuple) and any(map(_has_call, value)))


def _choice_lines(choice: Choice) -> Iterator[str]:
    """Yields a blank line, the comment and the statements of a choice; nothing if the base fits."""
    if not choice.settings:
        return
    yield ""
    yield from (f"# {line}" for line in textwrap.wrap(f"{choice.topic}: {choice.value} ({choice.reason})", _WIDTH - 2))
    by_parent: dict[str, dict[str, Any]] = {}
    for key, value in choice.settings.items():
        parent, _, name = key.rpartition(".")
        by_parent.setdefault(parent, {})[name] = value
    for parent, values in by_parent.items():
        if parent in _NEW_SECTIONS:
            yield from _lines(f"{parent} = ", values, "")
        elif len(values) == 1:
            name, value = next(iter(values.items()))
            yield from _lines(f"{parent}.{name} = ", value, "")
        else:
            yield from _enclosed(f"{parent}.update(", values, ")", "")


def _lines(start: str, value: Any, indent: str, end: str = "") -> list[str]:
    """Returns a value as lines of code, broken at commas if it is too long for one."""
    line = f"{indent}{start}{_value(value)}{end}"
    if len(line) <= _WIDTH:
        return [line]
    if isinstance(value, Call):
        return _enclosed(f"{start}L({_name(value.target)})(", value.arguments, f"){end}", indent)
    if isinstance(value, Mapping):
        return _enclosed(f"{start}dict(", value, f"){end}", indent)
    if isinstance(value, list | tuple):
        inner = [part for entry in value for part in _lines("", entry, indent + _INDENT, ",")]
        return [f"{indent}{start}[", *inner, f"{indent}]{end}"]
    return [line]


def _enclosed(start: str, arguments: Mapping[str, Any], end: str, indent: str) -> list[str]:
    line = f"{indent}{start}{_keywords(arguments)}{end}"
    if len(line) <= _WIDTH:
        return [line]
    inner = [part for name, value in arguments.items() for part in _lines(f"{name}=", value, indent + _INDENT, ",")]
    return [f"{indent}{start}", *inner, f"{indent}{end}"]


def _name(target: str) -> str:
    last = target.rpartition(".")[2]
    return f"T.{last}" if target.startswith(_TRANSFORMS) else last


def _keywords(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in arguments.items())


def _value(value: Any) -> str:
    """Returns a value as Python code."""
    if isinstance(value, Target):
        return _name(value.path)
    if isinstance(value, Call):
        return f"L({_name(value.target)})({_keywords(value.arguments)})"
    if isinstance(value, Mapping):
        return f"dict({_keywords(value)})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
