"""Checks that an override replaces a value by one of a suitable kind: a number by a number, a call by a call."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from maskrcnn_ext.config.callables import target_name
from maskrcnn_ext.errors import InputError

_EXPECTED = {
    "flag": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "text": "a text",
    "list": "a list",
}
_ANNOTATED = {"text": {"str", "Path", "PathLike"}, "whole": {"int", "float"}, "number": {"float"}, "flag": {"bool"}}


def kind_of(value: Any) -> str:
    """Returns one of null, flag, whole, number, text, list, node, mapping and object.

    Example:
        >>> kind_of(3), kind_of([3]), kind_of({"_target_": "a.B"})
        ('whole', 'list', 'node')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "whole" if isinstance(value, int) else "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "node" if "_target_" in value else "mapping"
    if isinstance(value, Sequence):
        return "list"
    return "object"


def check_value(
    text: str, key: str, old: Any, new: Any, *, argument: bool, parameter: inspect.Parameter | None = None
) -> None:
    """Checks one key of an override against the value that it replaces.

    Args:
        text: the override, for the message.
        key: the key of the value.
        old: the value in the config, or the default of the argument; None if neither is known.
        new: the value that replaces it.
        argument: whether the value is an argument of a call or an entry of a list, which accept more kinds than settings do.
        parameter: the parameter that receives the value, if known.

    Raises:
        InputError: the new value is of another kind, and the parameter's annotation does not allow it. The message is one line
            and says what to write instead.
    """
    was, now = kind_of(old), kind_of(new)
    if key.endswith("._target_"):  # the import check has better messages
        return
    if was in ("null", now) or (now == "text" and "${" in new) or _annotation_allows(parameter, now):
        return
    if now == "null" and (argument or was in ("node", "text")):
        return
    if was == "node":
        _reject_for_node(text, key, old, new, now)
    elif was == "mapping":
        keys = [str(name) for name in old] or ["name"]
        raise InputError(
            f"{text!r}: {key} is a mapping: set one of its keys ({', '.join(keys)}), as in {key}.{keys[0]}="
        )
    elif was == "object":
        raise InputError(
            f"{text!r}: {key} is {target_name(old)}, which a {now} cannot replace: set it in a config file"
        )
    elif not _can_replace(was, now, old, new, argument):
        shown = repr(old) if len(repr(old)) < 60 else was
        raise InputError(
            f"{text!r}: expected {_EXPECTED[was]}, as the {shown} that it replaces{_advice(was, key, old, new)}"
        )


def _reject_for_node(text: str, key: str, old: Mapping[str, Any], new: Any, now: str) -> None:
    if now == "mapping":  # merged, entry by entry
        return
    keys = [str(name) for name in old if name != "_target_"]
    replacement = f"the text {new!r}" if now == "text" else repr(new)
    swap = f"write {key}._target_={new} to swap it, or " if now == "text" and re.fullmatch(r"[\w.]+", new) else ""
    edit = f"set one of its keys ({', '.join(keys)})" if keys else f"{key}=null removes it"
    raise InputError(
        f"{text!r}: {key} is a call of {target_name(old['_target_'])} and would become {replacement}: {swap}{edit}"
    )


def _can_replace(was: str, now: str, old: Any, new: Any, argument: bool) -> bool:
    if was == "flag":
        return now == "whole" and new in (0, 1)
    if was == "number":
        return now == "whole" or (argument and now in ("list", "mapping", "node"))
    if was == "whole":
        return argument and now in ("number", "list", "mapping", "node")
    if was == "text":
        return argument and now in ("list", "mapping", "node")
    # A list: many arguments, such as short_edge_length and output_size, accept one number for several. A text would be read as a
    # list of its letters.
    if now in ("mapping", "node"):
        return argument
    return argument and now in ("whole", "number") and all(kind_of(entry) in ("whole", "number") for entry in old)


def _advice(was: str, key: str, old: Any, new: Any) -> str:
    if was == "text":
        return f": write {key}=\"'{new}'\""
    if was == "list":
        entry = f"{{_target_: {new}}}" if any(kind_of(entry) == "node" for entry in old) else new
        return f": write {key}=[{entry}]"
    if was == "whole" and isinstance(new, float) and new.is_integer():
        return f": write {key}={int(new)}"
    return ""


def _annotation_allows(parameter: inspect.Parameter | None, kind: str) -> bool:
    """Returns whether the parameter's annotation includes the kind."""
    if parameter is None or parameter.annotation is parameter.empty:
        return False
    annotation = parameter.annotation
    if isinstance(annotation, str):
        members = [member.strip() for member in annotation.split("|")]
    elif get_origin(annotation) in (Union, types.UnionType):
        members = [getattr(member, "__name__", str(member)) for member in get_args(annotation)]
    else:
        members = [getattr(annotation, "__name__", str(annotation))]
    return any(
        m == "Any" or m in _ANNOTATED.get(kind, ()) or (kind == "text" and m.startswith("Literal")) for m in members
    )
