"""A choice: what a rule decided, why, and the keys of the config that it sets. A plan is a list of choices on a shipped config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maskrcnn_ext.common.tables import text_table

_GAP = 2  # columns between two cells of a table


@dataclass(frozen=True)
class Target:
    """A class or function as a value of a config, such as ``Target("maskrcnn_ext.SafeMapper")``."""

    path: str


@dataclass(frozen=True)
class Call:
    """A LazyCall as a value of a config: ``Call("detectron2.data.transforms.RandomFlip", {"horizontal": True})``."""

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What one rule decided.

    Attributes:
        topic: what it is about, in a word or two.
        value: the decision in a few words.
        reason: the figure behind it.
        settings: the value of each key that differs from the base config. Values are numbers, texts, lists, :class:`Target` and
            :class:`Call`.
    """

    topic: str
    value: str
    reason: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def overrides(self) -> list[str]:
        """Returns the settings as overrides of the base config.

        Example:
            >>> Choice("classes", "2", "cat, dog", {"model.roi_heads.num_classes": 2}).overrides()
            ['model.roi_heads.num_classes=2']
        """
        return [f"{key}={override_value(value)}" for key, value in self.settings.items()]


@dataclass(frozen=True)
class Plan:
    """A planned training.

    Attributes:
        base: the shipped config that the choices change.
        data: the data set to train on, as in ``dataset.names``.
        val: the data set to validate on.
        summary: what is trained on what, in a line.
        choices: in the order of a config.
        warnings: what the user should know, one line each.
    """

    base: str
    data: str
    val: str
    summary: str
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...] = ()

    def choice(self, topic: str) -> Choice:
        """Returns the choice of a topic."""
        return next(choice for choice in self.choices if choice.topic == topic)

    def overrides(self) -> list[str]:
        """Returns all choices as overrides of the base config."""
        return [text for choice in self.choices for text in choice.overrides()]

    def value(self, key: str) -> Any:
        """Returns the value that the plan sets a key to; None if it leaves the base's."""
        return next((choice.settings[key] for choice in self.choices if key in choice.settings), None)

    def table(self, width: int | None = None) -> str:
        """Returns one line for each choice: topic, value, reason.

        Args:
            width: of the terminal in columns, within which values and reasons continue on further lines; None for any width.
        """
        rows = [[choice.topic, choice.value, choice.reason] for choice in self.choices]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        if width is None or sum(widths) + 2 * _GAP <= width:
            return text_table(rows)
        topic, value, _ = widths
        rest = width - topic - 2 * _GAP
        value = min(value, rest // 2)
        return text_table(rows, widths=[topic, value, rest - value])


def override_value(value: Any) -> str:
    """Returns a value as an override writes it, in hydra's grammar.

    Example:
        >>> override_value([Call("a.B", {"c": "d e"}), None, 1e-4])
        '[{_target_:a.B,c:"d e"},null,0.0001]'
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Target):
        return value.path
    if isinstance(value, Call):
        return override_value({"_target_": Target(value.target), **value.arguments})
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{override_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(override_value, value)) + "]"
    text = str(value)
    if re.fullmatch(r"[\w./-][\w./+-]*(:[\w./@-]+)?", text, re.ASCII):
        return text
    # Double quotes, because the shell's quotes around an override are single ones.
    return '"' + text.replace('"', '\\"') + '"'
