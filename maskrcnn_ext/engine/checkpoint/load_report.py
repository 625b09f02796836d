"""Reports which weights of a checkpoint were loaded, newly initialised as expected, or unexpectedly missing."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.engine.checkpoint.class_rows import differ_by_classes
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

Shape = tuple[int, ...]

# Not weights: BatchNorm's count of batches, pixel statistics from the config, and anchors, which are computed from the config.
_NOT_WEIGHTS = re.compile(r"(.*\.)?(num_batches_tracked|pixel_mean|pixel_std|anchor_generator\.cell_anchors\.\d+)")
# The last layer of an image classifier, which detectors do not have.
_CLASSIFIER = re.compile(r"(.*\.)?(fc\d*|head|classifier|linear|pred)[._](weight|bias|w|b)")
# Parameters that modules of this package add and no checkpoint of others contains.
_ADDED = re.compile(r".*\.extra_weight")
# The pre-trained network inside a backbone with a feature pyramid.
_TRUNKS = ("backbone.bottom_up", "backbone.net")
# Parts that not every detector has.
_OPTIONAL = ("roi_heads.mask_head", "roi_heads.keypoint_head")
_MAX_NAMES = 30
_NEW = "newly initialised"


@dataclass
class LoadReport:
    r"""Describes the weights that were loaded from a file. Names are those of the model's tensors, if the model has the part.

    Attributes:
        source: the file.
        loaded: tensors of the model that were loaded from the file.
        expected: reason -> names of tensors that are newly initialised or not used, as expected.
        resized: name -> (shape in the file, shape in the model) of tensors that are newly initialised since the number of classes differs.
        unexpected: tensors of the file that are not in the model.
        missing: tensors of the model that are newly initialised although the file has this part.
        changed: like `resized`, without a known reason.
        is_replaced: whether the file is for another backbone than the model's, which has its own pre-trained weights.

    Example:
        >>> report = LoadReport("a.pth", loaded=["fc.weight"], missing=["fc.bias"])
        >>> print("\n".join(report.lines()))
        Weights of a.pth: 1 tensor loaded
          UNEXPECTED, newly initialised though the file has this part: fc.bias
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    expected: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    resized: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    changed: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    is_replaced: bool = False

    def lines(self) -> list[str]:
        """Returns the lines of the report."""
        if self.is_replaced:
            return [
                f"Weights of {self.source}: not used, the backbone has its own pre-trained weights; set train.init_checkpoint='' to leave "
                "them out"
            ]
        lines = [f"Weights of {self.source}: {plural(len(self.loaded), 'tensor')} loaded"]
        lines += [f"  as expected, {reason}: {_list_or_count(names)}" for reason, names in self.expected.items()]
        if self.resized:
            hint = f"{_NEW}, other number of classes (train.loading.class_names keeps the common classes)"
            lines.append(f"  as expected, {hint}: {_list_shapes(self.resized)}")
        if self.unexpected:
            lines.append(f"  UNEXPECTED, in the file but not in the model: {_list_by_module(self.unexpected)}")
        if self.missing:
            lines.append(f"  UNEXPECTED, {_NEW} though the file has this part: {_list_by_module(self.missing)}")
        if self.changed:
            lines.append(f"  UNEXPECTED, {_NEW} because of another shape: {_list_shapes(self.changed)}")
        return lines

    def log(self) -> None:
        """Logs the report, as a warning if anything is unexpected."""
        is_bad = self.unexpected or self.missing or self.changed or not (self.loaded or self.is_replaced)
        logger.log(logging.WARNING if is_bad else logging.INFO, "\n".join(self.lines()))

    def require(self, strict: str) -> None:
        """Raises an error if the file does not fit the model.

        Args:
            strict: "none" accepts everything; "body" accepts nothing unexpected; "all" requires the tensors of the file to be exactly those
                of the model.

        Raises:
            InputError: the file does not fit; the message names the tensors.
        """
        problems = {"none": [], "body": self._unexpected(), "all": self._unexpected() + self._expected()}[strict]
        if problems:
            raise InputError(
                f"train.loading.strict={strict}: {self.source} does not fit the model: {'; '.join(problems)}; fix the file or the model, "
                "or set train.loading.strict=none"
            )

    def newly_initialised(self) -> list[str]:
        """Returns the names of the model's tensors that were not loaded, for any reason."""
        expected = [name for reason, names in self.expected.items() if _NEW in reason for name in names]
        return [*self.missing, *self.changed, *self.resized, *expected]

    def _unexpected(self) -> list[str]:
        if not self.loaded and not self.is_replaced:
            return ["none of its tensors has the name and shape of a tensor of the model"]
        return [
            *([f"not in the model: {_list_some(self.unexpected)}"] if self.unexpected else []),
            *([f"{_NEW}: {_list_some(self.missing)}"] if self.missing else []),
            *([f"of another shape: {_list_shapes(self.changed)}"] if self.changed else []),
        ]

    def _expected(self) -> list[str]:
        return [
            *(f"{reason}: {_list_some(names)}" for reason, names in self.expected.items()),
            *([f"other number of classes: {_list_shapes(self.resized)}"] if self.resized else []),
        ]


def own_weights(model: nn.Module) -> tuple[str, ...]:
    """Returns the prefixes of the parts that load their own pre-trained weights, as :class:`maskrcnn_ext.TimmBackbone` does.

    Example:
        >>> own_weights(nn.Linear(1, 1))
        ()
    """
    parts = [name for name, module in model.named_modules() if getattr(module, "has_pretrained_weights", False)]
    return tuple(f"{name}." for name in parts)


def make_report(source: str, model: nn.Module, file_shapes: Mapping[str, Shape], incompatible: Any) -> LoadReport:
    """Classifies the result of Detectron2's loader.

    Args:
        source: the file.
        model: a Detectron2 model, after loading.
        file_shapes: name -> shape of all tensors of the file, renamed to the model's names as far as they were matched.
        incompatible: result of the checkpointer's ``_load_model``: missing_keys, unexpected_keys, incorrect_shapes.
    """
    result = LoadReport(source)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    changed = {name: (tuple(theirs), tuple(ours)) for name, theirs, ours in incompatible.incorrect_shapes}
    new = _without_aliases(model, [name for name in incompatible.missing_keys if name not in changed])
    unused = [name for name in incompatible.unexpected_keys if not _NOT_WEIGHTS.fullmatch(name)]
    result.loaded = [name for name in file_shapes if name in shapes and name not in changed]

    is_detector = any(
        name.startswith(("proposal_generator.", "roi_heads.")) for name in file_shapes if ".res5." not in name
    )
    if own_weights(model) and not is_detector and not result.loaded:
        result.is_replaced = True
        return result
    trunk = next((trunk for trunk in _TRUNKS if any(name.startswith(f"{trunk}.") for name in shapes)), "backbone")
    file_parts, model_parts = _group_by_part(file_shapes, trunk), _group_by_part(shapes, trunk)
    loaded_parts, unused_parts, new_parts = (_group_by_part(names, trunk) for names in (result.loaded, unused, new))
    # The model has another head: no tensor was loaded, and the tensors are not the same ones under other names.
    replaced = {
        part
        for part in file_parts.keys() & model_parts.keys() - loaded_parts.keys()
        if part.startswith("roi_heads.")
        and sorted(file_shapes[name] for name in unused_parts[part]) != sorted(shapes[name] for name in new_parts[part])
    }

    for name in new:
        part = _part_of(name, trunk)
        if _NOT_WEIGHTS.fullmatch(name):
            continue
        if part in replaced:
            result.expected[f"{_NEW}, another {part} than in the file"].append(name)
        elif _ADDED.fullmatch(name):
            result.expected[f"{_NEW}, added by this package"].append(name)
        elif part in file_parts or part == trunk or (is_detector and part in ("backbone", "proposal_generator")):
            result.missing.append(name)
        else:
            result.expected[f"{_NEW}, no such part in the file"].append(name)
    for name in unused:
        part = _part_of(name, trunk)
        if part in replaced:
            result.expected[f"not used, the file's {part}"].append(name)
        elif not is_detector and _CLASSIFIER.fullmatch(name):
            result.expected["not used, the file's image classifier"].append(name)
        elif part in _OPTIONAL and part not in model_parts:
            result.expected["not used, no such part in the model"].append(name)
        else:
            result.unexpected.append(name)
    for name, (theirs, ours) in changed.items():
        part = _part_of(name, trunk)
        if part in replaced:
            result.expected[f"{_NEW}, another {part} than in the file"].append(name)
        elif differ_by_classes(name, model, theirs, ours):
            result.resized[name] = (theirs, ours)
        else:
            result.changed[name] = (theirs, ours)
    return result


def _part_of(name: str, trunk: str) -> str:
    """Returns the part of the model that a tensor belongs to: a head, the trunk, the rest of the backbone or a top-level module."""
    if trunk and name.startswith(f"{trunk}."):
        return trunk
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "roi_heads" else first


def _group_by_part(names: Iterable[str], trunk: str) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parts[_part_of(name, trunk)].append(name)
    return parts


def _without_aliases(model: nn.Module, names: list[str]) -> list[str]:
    """Drops names of tensors that were loaded under another name, as in a module that two parts share."""
    by_tensor = defaultdict(set)
    for name, tensor in model.state_dict(keep_vars=True).items():
        by_tensor[id(tensor)].add(name)
    missing = set(names)
    loaded_elsewhere = {name for aliases in by_tensor.values() if aliases - missing for name in aliases & missing}
    return [name for name in names if name not in loaded_elsewhere]


def _list_by_module(names: Iterable[str]) -> str:
    """Returns names with the tensors of one module joined: ``a.{weight, bias}``."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        module, _, last = name.rpartition(".")
        groups[module].append(last)
    return ", ".join(
        ".".join(filter(None, [module, last[0] if len(last) == 1 else f"{{{', '.join(last)}}}"]))
        for module, last in groups.items()
    )


def _list_or_count(names: list[str]) -> str:
    """Returns up to four names, or the number of names in each part."""
    if len(names) <= 4:
        return _list_by_module(names)
    return ", ".join(f"{part} ({len(members)})" for part, members in _group_by_part(names, "").items())


def _list_some(names: list[str]) -> str:
    return short_list(names, _MAX_NAMES) + (" (the log has all)" if len(names) > _MAX_NAMES else "")


def _list_shapes(shapes: Mapping[str, tuple[Shape, Shape]]) -> str:
    return ", ".join(f"{name} {theirs} -> {ours}" for name, (theirs, ours) in shapes.items())
