"""Maps the tensors of another framework to Detectron2's, reports what became of every key, and writes the result."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.errors import InputError

# How many keys a message names at most.
_MAX_NAMED = 8

# A pattern that matches a whole key of the source, and the name in the model: a template for `re.Match.expand`, or a function of the
# match.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass
class KeyReport:
    """Reports how the keys of a source and the tensors of the model correspond.

    Attributes:
        source: path of the source.
        used: key of the source -> the tensors of the model made from it.
        unused: key of the source -> why the model does not need it.
        missing: tensor of the model -> why the source does not contain it.
        unexplained: a line for each key or tensor that is in none of these.

    Example:
        >>> KeyReport("a.pth", used={"fc.weight": ["roi_heads.box_head.fc1.weight"]}).lines()
        ['a.pth: 1 key used, 0 not, 0 missing']
    """

    source: str
    used: dict[str, list[str]] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)

    def lines(self, verbose: bool = False) -> list[str]:
        """Returns the report: the number of used keys, and the other keys by reason. `verbose` names every key and its tensors."""
        lines = [
            f"{self.source}: {plural(len(self.used), 'key')} used, {len(self.unused)} not, {len(self.missing)} missing"
        ]
        if verbose:
            lines += [f"  {key} -> {', '.join(names)}" for key, names in self.used.items()]
        for status, reasons in (("not used", self.unused), ("missing", self.missing)):
            for reason, names in _group_by_reason(reasons).items():
                lines.append(f"  {status}, {reason}: {', '.join(names) if verbose else short_list(names, _MAX_NAMED)}")
        return lines + [f"  UNEXPLAINED: {line}" for line in self.unexplained]

    def raise_if_unexplained(self) -> None:
        """Checks that every key and tensor is explained.

        Raises:
            InputError: one is not; the message names it.
        """
        if self.unexplained:
            raise InputError(
                f"{self.source}: cannot explain {plural(len(self.unexplained), 'key')}, so the outputs would not be the source's: "
                f"{short_list(self.unexplained, _MAX_NAMED)}"
            )


@dataclass(frozen=True)
class Converted:
    """Weights of another framework, converted for Detectron2.

    Attributes:
        state: tensors by Detectron2's names.
        config: a complete LazyConfig for prediction and training; its model returns the source's own outputs.
        classes: names of the classes in the order of the model's outputs; None if the source does not contain them.
        report: how the source's keys were used.
    """

    state: dict[str, Tensor]
    config: DictConfig
    classes: list[str] | None
    report: KeyReport


class Conversion:
    r"""Builds a model's state dict from the tensors of a source, and records the use of every key.

    Example::

        conversion = Conversion("model.pth", tensors)
        conversion.rename([(r"head\.fc6\.(weight|bias)", r"roi_heads.box_head.fc1.\1")])
        converted = conversion.finish(config, classes=None)
    """

    def __init__(self, source: str, tensors: Mapping[str, Tensor]) -> None:
        """Starts with an empty state dict.

        Args:
            source: name of the source in messages, such as the path of the file.
            tensors: tensors of the source by key.
        """
        self._tensors = tensors
        self._state: dict[str, Tensor] = {}
        self._wanted: list[tuple[str, str]] = []
        self._expected: list[tuple[str, str]] = []
        self._report = KeyReport(source)

    def put(self, name: str, *keys: str, make: Callable[..., Tensor] | None = None) -> None:
        """Sets a tensor of the model.

        Args:
            name: in the model's state dict.
            keys: keys of the source; :meth:`finish` reports those that the source lacks.
            make: computes the tensor from those of the keys; if None, the tensor of the only key is used.
        """
        if name in self._state:
            self._report.unexplained.append(f"{', '.join(keys)} and another key both map to the model's {name}")
        absent = [key for key in keys if key not in self._tensors]
        self._wanted += [(key, name) for key in absent]
        if absent:
            return
        for key in keys:
            self._report.used.setdefault(key, []).append(name)
        tensors = [self._tensors[key] for key in keys]
        try:
            (tensor,) = [make(*tensors)] if make else tensors
        except IndexError as error:  # the tensor has too few dimensions
            self._report.unexplained.append(f"{', '.join(keys)} cannot become {name} ({error})")
            return
        self._state[name] = tensor.detach().clone().contiguous()

    def fill(self, name: str, tensor: Tensor, reason: str) -> None:
        """Sets a tensor of the model that the source lacks for a reason."""
        self._state[name] = tensor
        self._report.missing[name] = reason

    def rename(self, rules: Sequence[Rule]) -> None:
        """Sets the tensors whose names follow from their keys by the first rule that matches."""
        for key in self._tensors:
            for pattern, name in rules:
                match = re.fullmatch(pattern, key)
                if match:
                    self.put(match.expand(name) if isinstance(name, str) else name(match), key)
                    break

    def ignore(self, pattern: str, reason: str) -> None:
        """Declares the unused keys that match a pattern as a whole as not needed, for a reason."""
        for key in self._tensors:
            if key not in self._report.used and re.fullmatch(pattern, key):
                self._report.unused[key] = reason

    def expect_missing(self, pattern: str, reason: str) -> None:
        """Declares that the source lacks the tensors of the model whose names match a pattern as a whole, for a reason."""
        self._expected.append((pattern, reason))

    def ignore_batch_counts(self) -> None:
        """Declares the ``num_batches_tracked`` of norms as not needed on either side."""
        for declare in (self.ignore, self.expect_missing):
            declare(r".*\.num_batches_tracked", "a count of batches, which no output depends on")

    def finish(self, config: DictConfig, classes: list[str] | None) -> Converted:
        """Compares the state dict with the config's model and returns the result.

        Raises:
            InputError: a key of the source or a tensor of the model is not explained, or a shape differs; the message names them.
        """
        report, shapes = self._report, model_shapes(config)
        report.unexplained += [f"{key} is missing ({name} needs it)" for key, name in self._wanted]
        wanted = {name for _, name in self._wanted}
        for name, tensor in self._state.items():
            if name not in shapes:
                report.unexplained.append(f"{name}: the model has no such tensor")
            elif tuple(tensor.shape) != shapes[name]:
                report.unexplained.append(f"{name} has shape {tuple(tensor.shape)}, the model's has {shapes[name]}")
        for name in shapes:
            if name in self._state or name in wanted:
                continue
            reason = next((reason for pattern, reason in self._expected if re.fullmatch(pattern, name)), None)
            if reason is None:
                report.unexplained.append(f"no key for the model's {name}")
            else:
                report.missing[name] = reason
        known = report.used.keys() | report.unused.keys()
        report.unexplained += [f"{key} is not used" for key in self._tensors if key not in known]
        report.raise_if_unexplained()
        return Converted(self._state, config, classes, report)


def model_shapes(config: DictConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor in the state dict of the config's model, by name."""
    from detectron2.config import instantiate

    with torch.device("meta"):  # allocates nothing and draws no random numbers
        model = instantiate(config.model)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def write_model(converted: Converted, output: Path, *, overwrite: bool = False) -> list[Path]:
    """Writes ``model.pth``, ``config.yaml``, and ``classes.json`` if the classes are not those of the config's data set.

    ``config.yaml`` is a complete LazyConfig whose ``train.init_checkpoint`` is the absolute path of the weights. ``classes.json`` is a
    COCO file without images. It replaces the config's data sets, so that predictions have class names and category ids 1, 2 and so on.

    Args:
        converted: the converted weights.
        output: the folder; it is made if it does not exist.
        overwrite: replace existing files.

    Returns:
        The files.

    Raises:
        InputError: a file exists already, or cannot be written.

    Example::

        weights, config, *_ = write_model(convert(Path("maskrcnn.pth")), Path("imported"))
    """
    import json

    from maskrcnn_ext.config.config_yaml import save_config
    from maskrcnn_ext.engine.checkpoint import files

    weights, config_file, classes_file = (output / name for name in ("model.pth", "config.yaml", "classes.json"))
    existing = [file for file in (weights, config_file) if file.exists()]
    if existing and not overwrite:
        raise InputError(f"{existing[0]} exists already: choose another folder, or replace it with --overwrite")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {output} ({error.strerror or error})") from error
    cfg = converted.config.copy()
    cfg.train.init_checkpoint = str(weights.absolute())
    written = [weights, config_file]
    classes = _own_classes(converted)
    if classes:
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        write_atomic(classes_file, json.dumps({"images": [], "annotations": [], "categories": categories}))
        cfg.dataloader.train.dataset.names = f"coco:{classes_file.absolute()}@{output.absolute()}"
        cfg.dataloader.test.dataset.names = cfg.dataloader.train.dataset.names
        written.append(classes_file)
    files.write({"model": converted.state}, weights)
    save_config(cfg, config_file)
    return written


def _own_classes(converted: Converted) -> list[str]:
    """Returns the names of the classes, or "class 1" and so on without names; empty if the config's data set has the same."""
    from maskrcnn_ext.data.registry.catalog import read_class_names

    known = read_class_names(converted.config.dataloader.test.dataset.names)
    count = converted.config.model.roi_heads.num_classes
    if converted.classes is None:
        return [] if len(known) == count else [f"class {number}" for number in range(1, count + 1)]
    if len(converted.classes) != count:
        raise InputError(
            f"{converted.report.source}: {plural(len(converted.classes), 'class name')} for the model's {plural(count, 'class', 'classes')}"
        )
    return [] if converted.classes == known else converted.classes


def _group_by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, reason in reasons.items():
        groups[reason].append(name)
    return groups
