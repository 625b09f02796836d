"""The settings that this package adds below ``train``: their defaults and valid values. Detectron2's own script ignores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from maskrcnn_ext.errors import InputError

# A predicate for valid values, and the text for "expected ..." in the error.
Rule = tuple[Callable[[Any], bool], str]


class Setting(NamedTuple):
    """The default of one key, and the rule for its values."""

    default: Any
    rule: Rule


def _override_value(value: Any) -> str:
    """Returns a value as an override writes it."""
    return {None: "null", True: "true", False: "false"}[value] if isinstance(value, bool | None) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_of(*values: Any) -> Rule:
    expected = ", ".join(_override_value(value) for value in values)
    # The types are compared because True == 1.
    return (lambda value: any(value == v and type(value) is type(v) for v in values)), f"one of {expected}"


def _whole(least: int | None = None) -> Rule:
    expected = "a whole number" if least is None else f"a whole number, {least} or more"
    return (lambda value: _is_number(value) and isinstance(value, int) and (least is None or value >= least)), expected


def _number(expected: str, is_valid: Callable[[float], bool]) -> Rule:
    return (lambda value: _is_number(value) and is_valid(value)), expected


def _or_null(rule: Rule) -> Rule:
    return (lambda value: value is None or rule[0](value)), f"null or {rule[1]}"


def _list_of(is_valid: Callable[[Any], bool], expected: str) -> Rule:
    return (lambda value: isinstance(value, list) and all(is_valid(entry) for entry in value)), expected


def _names(*values: str) -> Rule:
    return _list_of(lambda entry: entry in values, f"a list of {', '.join(values)}")


_FLAG: Rule = (lambda value: isinstance(value, bool)), "true or false"
_TEXT: Rule = (lambda value: isinstance(value, str) and bool(value)), "a text"
_METRIC = _or_null((_TEXT[0], "a metric such as segm/AP"))
_MODE = _one_of("max", "min")

SETTINGS: dict[str, Setting] = {
    "seed": Setting(-1, _whole()),
    "epochs": Setting(None, _or_null(_number("a number above 0", lambda value: value > 0))),
    "time": Setting(None, _or_null(_number("minutes, a number above 0", lambda value: value > 0))),
    "clock": Setting("wall", _one_of("wall", "cpu")),
    "cudnn_benchmark": Setting(False, _FLAG),
    "amp.dtype": Setting(None, _one_of(None, "bf16", "fp16")),
    "amp.on_cpu": Setting(False, _FLAG),
    "channels_last": Setting(False, _FLAG),
    "compile": Setting(False, _FLAG),
    "winograd": Setting(False, _FLAG),
    "accumulate": Setting(1, _whole(1)),
    "clip_grad": Setting(None, _or_null(_number("a number above 0", lambda value: value > 0))),
    "activation_checkpointing": Setting([], _names("backbone", "box_head", "mask_head", "keypoint_head")),
    "freeze": Setting(
        [],
        _list_of(
            lambda entry: isinstance(entry, str) and bool(entry),
            "a list of patterns of parameter names such as backbone.*",
        ),
    ),
    "hooks": Setting(
        [],
        _list_of(
            lambda entry: isinstance(entry, dict) and "_target_" in entry, "a list of hooks, each with a _target_"
        ),
    ),
    "validation_loss": Setting(False, _FLAG),
    "best.metric": Setting(None, _METRIC),
    "best.mode": Setting("max", _MODE),
    "best.evaluate": Setting(False, _FLAG),
    "early_stopping.metric": Setting(None, _METRIC),
    "early_stopping.mode": Setting("max", _MODE),
    "early_stopping.patience": Setting(5, _whole(1)),
    "early_stopping.min_delta": Setting(0.0, _number("a number, 0 or more", lambda value: value >= 0)),
    "ema.decay": Setting(None, _or_null(_number("a number between 0 and 1, such as 0.999", lambda v: 0 < v < 1))),
    "lr_finder.enabled": Setting(False, _FLAG),
    "lr_finder.lowest": Setting(1e-6, _number("a number above 0", lambda value: value > 0)),
    "lr_finder.highest": Setting(1.0, _number("a number above 0", lambda value: value > 0)),
    "lr_finder.steps": Setting(100, _whole(10)),
    "image_panel.count": Setting(4, _whole(0)),
    "writers": Setting([], _names("wandb", "mlflow")),
    "progress": Setting("auto", _one_of("auto", "bar", "plain", "page")),
    "guard.enabled": Setting(True, _FLAG),
    "guard.on_fault": Setting("stop", _one_of("stop", "skip", "rollback")),
    "deterministic": Setting(False, _FLAG),
    "match_classes": Setting("strict", _one_of("strict", "name", "index")),
    "loading.strict": Setting("none", _one_of("none", "body", "all")),
    "loading.allow_pickle": Setting(False, _FLAG),
    "loading.class_names": Setting(
        None,
        (
            lambda value: (
                value is None
                or isinstance(value, str)
                or (isinstance(value, list) and all(isinstance(v, str) for v in value))
            ),
            "null, a list of names, or a data set that has them",
        ),
    ),
    "loader_timeout": Setting(0.0, _number("seconds, 0 (no limit) or more", lambda value: value >= 0)),
}
# Detectron2 has keys in these sections, too.
_SHARED = {"amp"}


def takes_null(key: str) -> bool:
    """Returns whether null is a valid value of a key below ``train``, of this package or of Detectron2.

    Example:
        >>> takes_null("train.epochs"), takes_null("train.accumulate")
        (True, False)
    """
    setting = SETTINGS.get(key.removeprefix("train."))
    return key == "train.checkpointer.max_to_keep" if setting is None else setting.rule[0](None)


def _nested_defaults(settings: Mapping[str, Setting]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, setting in settings.items():
        *sections, name = key.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = setting.default
    return nested


TRAIN: dict[str, Any] = _nested_defaults(SETTINGS)


def add_missing_settings(cfg: DictConfig) -> DictConfig:
    """Adds the settings that ``cfg.train`` lacks, with their defaults. Changes `cfg` in place and returns it.

    Raises:
        InputError: the config has no section ``train``.

    Example:
        >>> add_missing_settings(OmegaConf.create({"train": {"seed": 3}})).train.accumulate
        1
    """
    if not OmegaConf.is_dict(cfg.get("train")):
        raise InputError(
            "the config has no `train`: use a config with model, dataloader, optimizer, lr_multiplier and train"
        )
    for path, default in _leaves(TRAIN):
        *sections, name = path.split(".")
        section = cfg.train
        for part in sections:
            if part not in section:
                section[part] = {}
            section = section[part]
        if OmegaConf.is_dict(section) and name not in section:
            section[name] = default
    return cfg


def check_settings(cfg: DictConfig) -> None:
    """Checks the values of this package's settings in a config that has all of them.

    Raises:
        InputError: a setting has an invalid value, or one of our sections has an unknown key; the message lists the valid ones.

    Example:
        >>> check_settings(add_missing_settings(OmegaConf.create({"train": {"accumulate": 0}})))
        Traceback (most recent call last):
        maskrcnn_ext.errors.InputError: train.accumulate=0: expected a whole number, 1 or more
    """
    for section, known in TRAIN.items():
        if isinstance(known, dict):
            _check_section(section, cfg.train[section], known)
    for key, (_, (is_valid, expected)) in SETTINGS.items():
        value = OmegaConf.select(cfg.train, key)
        resolved = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        if not is_valid(resolved):
            raise InputError(f"train.{key}={_override_value(resolved)}: expected {expected}")
    if cfg.train.epochs is not None and cfg.train.time is not None:
        raise InputError("train.epochs and train.time both set the length of the training: set one of them")
    finder = cfg.train.lr_finder
    if finder.lowest >= finder.highest:
        raise InputError(
            f"train.lr_finder.lowest={finder.lowest}: expected less than train.lr_finder.highest={finder.highest}"
        )


def _check_section(name: str, section: Any, known: Mapping[str, Any]) -> None:
    if not OmegaConf.is_dict(section):
        raise InputError(
            f"train.{name}={_override_value(section)}: expected the keys {', '.join(known)}, as in train.{name}.{next(iter(known))}"
        )
    unknown = [str(key) for key in section if key not in known]
    if unknown and name not in _SHARED:
        raise InputError(f"train.{name} has no {', '.join(unknown)}: it has {', '.join(known)}")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
