"""May this value stand where that one stood? Catches what an override would silently turn into a text or a number."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from omegaconf import OmegaConf

from maskrcnn_ext.config.callables import name_of
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
    """Returns one of null, flag, whole, number, text, list, node, mapping and object."""
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
        key: of the value.
        old: what the config has there, or the default of the argument; None where nothing is known.
        new: what comes in its place.
        argument: whether it is an argument of a call, or an entry of a list: those take more kinds than settings do.
        parameter: the parameter that takes it, where that is known.

    Raises:
        InputError: the new value is of another kind, and nothing says that it may be. One line with what to write instead.
    """
    was, now = kind_of(old), kind_of(new)
    if key.endswith("._target_"):  # whether it can be imported says more
        return
    if was in ("null", now) or (now == "text" and "${" in new) or _admits(parameter, now):
        return
    if now == "null" and (argument or was in ("node", "text")):
        return
    if was == "node":
        _refuse_for_node(text, key, old, new, now)
    elif was == "mapping":
        keys = [str(name) for name in old] or ["name"]
        raise InputError(
            f"{text!r}: {key} is a mapping: set one of its keys ({', '.join(keys)}), as in {key}.{keys[0]}="
        )
    elif was == "object":
        raise InputError(f"{text!r}: {key} is {name_of(old)}, which a {now} cannot replace: set it in a config file")
    elif not _fits(was, now, old, new, argument):
        shown = repr(old) if len(repr(old)) < 60 else was
        raise InputError(
            f"{text!r}: expected {_EXPECTED[was]}, as the {shown} that it replaces{_advice(was, key, old, new)}"
        )


def _refuse_for_node(text: str, key: str, old: Mapping[str, Any], new: Any, now: str) -> None:
    if now == "mapping":  # merged, entry by entry
        return
    keys = [str(name) for name in old if name != "_target_"]
    told = f"the text {new!r}" if now == "text" else repr(new)
    swap = f"write {key}._target_={new} to swap it, or " if now == "text" and re.fullmatch(r"[\w.]+", new) else ""
    own = f"set one of its keys ({', '.join(keys)})" if keys else f"{key}=null leaves it out"
    raise InputError(f"{text!r}: {key} is a call of {name_of(old['_target_'])} and would become {told}: {swap}{own}")


def _fits(was: str, now: str, old: Any, new: Any, argument: bool) -> bool:
    if was == "flag":
        return now == "whole" and new in (0, 1)
    if was == "number":
        return now == "whole" or (argument and now in ("list", "mapping", "node"))
    if was == "whole":
        return argument and now in ("number", "list", "mapping", "node")
    if was == "text":
        return argument and now in ("list", "mapping", "node")
    # A list: one number stands for several in many arguments, such as short_edge_length and output_size; a text would be read as
    # a list of its letters.
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


def _admits(parameter: inspect.Parameter | None, kind: str) -> bool:
    """Whether the parameter's annotation names the kind."""
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


def plain(value: Any) -> Any:
    """Returns a config as plain containers, with interpolations as they are written; anything else as it is."""
    return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
