"""What became of the weights of a file: taken, fresh as is to be expected, or not as anyone would expect."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from maskrcnn_ext.engine.checkpoint.class_rows import differ_by_classes
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

Shape = tuple[int, ...]

# Not weights: a count of batches; mean and standard deviation of the pixels, which the config says; what is computed from the config.
_NOT_WEIGHTS = re.compile(r"(.*\.)?(num_batches_tracked|pixel_mean|pixel_std|anchor_generator\.cell_anchors\.\d+)")
# The last layer of a classifier of whole images, which no detector has.
_CLASSIFIER = re.compile(r"(.*\.)?(fc\d*|head|classifier|linear|pred)[._](weight|bias|w|b)")
# Parameters that modules of this package have beyond what any checkpoint brings.
_ADDED = re.compile(r".*\.extra_weight")
# What holds the network that is pre-trained on images, where the backbone puts a pyramid on top of it.
_TRUNKS = ("backbone.bottom_up", "backbone.net")
# Parts of a detector without which there are detectors as well.
_OPTIONAL = ("roi_heads.mask_head", "roi_heads.keypoint_head")
_MOST_NAMED = 30


@dataclass
class LoadReport:
    """What became of the weights of a file. Every name is that in the model, where the model has the part.

    Attributes:
        source: the file.
        loaded: tensors of the model that are the file's now.
        expected: reason -> names of tensors that stay fresh, or that are not needed, as is to be expected.
        resized: name -> (shape in the file, shape in the model): fresh because the number of classes is another.
        unexpected: names in the file that nothing has taken.
        missing: names in the model that stay fresh, although the file has that part.
        changed: as `resized`, for no known reason.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    expected: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    resized: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    changed: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Returns the report for a log."""
        lines = [f"Weights of {self.source}: {len(self.loaded)} tensors loaded"]
        lines += [f"  as expected, {reason}: {_counted(names)}" for reason, names in self.expected.items()]
        if self.resized:
            hint = "fresh, other number of classes (train.loading.class_names keeps the classes in common)"
            lines.append(f"  as expected, {hint}: {_with_shapes(self.resized)}")
        if self.unexpected:
            lines.append(f"  UNEXPECTED, in the file and taken by nothing: {_grouped(self.unexpected)}")
        if self.missing:
            lines.append(f"  UNEXPECTED, fresh though the file has this part: {_grouped(self.missing)}")
        if self.changed:
            lines.append(f"  UNEXPECTED, fresh because of another shape: {_with_shapes(self.changed)}")
        return lines

    def log(self) -> None:
        """Logs the report, as a warning where something is unexpected."""
        is_bad = self.unexpected or self.missing or self.changed or not self.loaded
        logger.log(logging.WARNING if is_bad else logging.INFO, "\n".join(self.lines()))

    def require(self, strict: str) -> None:
        """Checks.

        Args:
            strict: "none" for nothing; "body" for no tensor that is unexpected; "all" for every tensor of the model and of the file being
                the same.

        Raises:
            InputError: it is not so.
        """
        wrong = {"none": [], "body": self._wrong(), "all": self._wrong() + self._excused()}[strict]
        if wrong:
            raise InputError(
                f"train.loading.strict={strict}: {self.source} does not fit the model: {'; '.join(wrong)}; mend the file or the model, or "
                "set train.loading.strict=none"
            )

    def fresh(self) -> list[str]:
        """Returns the names in the model that are still as they were before, for whatever reason."""
        excused = [name for reason, names in self.expected.items() if "fresh" in reason for name in names]
        return [*self.missing, *self.changed, *self.resized, *excused]

    def _wrong(self) -> list[str]:
        if not self.loaded:
            return ["none of its tensors has the name and shape of one in the model"]
        return [
            *([f"taken by nothing: {_few(self.unexpected)}"] if self.unexpected else []),
            *([f"fresh: {_few(self.missing)}"] if self.missing else []),
            *([f"of another shape: {_with_shapes(self.changed)}"] if self.changed else []),
        ]

    def _excused(self) -> list[str]:
        return [
            *(f"{reason}: {_few(names)}" for reason, names in self.expected.items()),
            *([f"other number of classes: {_with_shapes(self.resized)}"] if self.resized else []),
        ]


def report(source: str, model: nn.Module, given: Mapping[str, Shape], incompatible: Any) -> LoadReport:
    """Sorts what Detectron2's loader has found.

    Args:
        source: the file.
        model: of Detectron2, after loading.
        given: name -> shape of all tensors of the file, under the model's names where they were matched.
        incompatible: what ``_load_model`` of the checkpointer returns: missing_keys, unexpected_keys, incorrect_shapes.
    """
    result = LoadReport(source)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    changed = {name: (tuple(theirs), tuple(ours)) for name, theirs, ours in incompatible.incorrect_shapes}
    fresh = _without_aliases(model, [name for name in incompatible.missing_keys if name not in changed])
    unused = [name for name in incompatible.unexpected_keys if not _NOT_WEIGHTS.fullmatch(name)]
    result.loaded = [name for name in given if name in shapes and name not in changed]

    is_detector = any(name.startswith(("proposal_generator.", "roi_heads.")) for name in given if ".res5." not in name)
    trunk = next((trunk for trunk in _TRUNKS if any(name.startswith(f"{trunk}.") for name in shapes)), "backbone")
    parts_given, parts_ours = _by_part(given, trunk), _by_part(shapes, trunk)
    parts_loaded, parts_unused, parts_fresh = (_by_part(names, trunk) for names in (result.loaded, unused, fresh))
    # Another head in the place of the file's: no tensor fits, and they are not the same ones under other names.
    replaced = {
        part
        for part in parts_given.keys() & parts_ours.keys() - parts_loaded.keys()
        if part.startswith("roi_heads.")
        and sorted(given[name] for name in parts_unused[part]) != sorted(shapes[name] for name in parts_fresh[part])
    }

    for name in fresh:
        part = _part(name, trunk)
        if _NOT_WEIGHTS.fullmatch(name):
            continue
        if part in replaced:
            result.expected[f"another {part} than the file's, fresh"].append(name)
        elif _ADDED.fullmatch(name):
            result.expected["fresh, of this package's own"].append(name)
        elif part in parts_given or part == trunk or (is_detector and part in ("backbone", "proposal_generator")):
            result.missing.append(name)
        else:
            result.expected["fresh, the file has no such part"].append(name)
    for name in unused:
        part = _part(name, trunk)
        if part in replaced:
            result.expected[f"the file's {part}, not used"].append(name)
        elif not is_detector and _CLASSIFIER.fullmatch(name):
            result.expected["the file's classifier of images, not used"].append(name)
        elif part in _OPTIONAL and part not in parts_ours:
            result.expected["not used, the model has no such part"].append(name)
        else:
            result.unexpected.append(name)
    for name, (theirs, ours) in changed.items():
        part = _part(name, trunk)
        if part in replaced:
            result.expected[f"another {part} than the file's, fresh"].append(name)
        elif differ_by_classes(name, model, theirs, ours):
            result.resized[name] = (theirs, ours)
        else:
            result.changed[name] = (theirs, ours)
    return result


def _part(name: str, trunk: str) -> str:
    """The part of the model that a name belongs to: a head, the trunk, the rest of the backbone, another top-level module."""
    if trunk and name.startswith(f"{trunk}."):
        return trunk
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "roi_heads" else first


def _by_part(names: Iterable[str], trunk: str) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parts[_part(name, trunk)].append(name)
    return parts


def _without_aliases(model: nn.Module, names: list[str]) -> list[str]:
    """Drops names of tensors that have come under another name, such as those of a module that two parts share."""
    by_tensor = defaultdict(set)
    for name, tensor in model.state_dict(keep_vars=True).items():
        by_tensor[id(tensor)].add(name)
    missing = set(names)
    loaded_elsewhere = {name for aliases in by_tensor.values() if aliases - missing for name in aliases & missing}
    return [name for name in names if name not in loaded_elsewhere]


def _grouped(names: Iterable[str]) -> str:
    """Names with those of one module in one: ``a.{weight, bias}``."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        module, _, last = name.rpartition(".")
        groups[module].append(last)
    return ", ".join(
        ".".join(filter(None, [module, last[0] if len(last) == 1 else f"{{{', '.join(last)}}}"]))
        for module, last in groups.items()
    )


def _counted(names: list[str]) -> str:
    """How many names the parts have, or the names where they are few."""
    parts = _by_part(names, "")
    return _grouped(names) if len(names) <= 4 else ", ".join(f"{part} ({len(own)})" for part, own in parts.items())


def _few(names: list[str]) -> str:
    """The names in full, as many as fit into a line."""
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more (the log has all)" if rest > 0 else "")


def _with_shapes(shapes: Mapping[str, tuple[Shape, Shape]]) -> str:
    return ", ".join(f"{name} {theirs} -> {ours}" for name, (theirs, ours) in shapes.items())
