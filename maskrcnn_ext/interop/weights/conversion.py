"""What a conversion of another framework's weights makes, and the account of every key that it must give."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from maskrcnn_ext.errors import InputError

_MOST_NAMED = 8

# A pattern for whole keys of a source, and the name in the model: a template for `re.Match.expand`, or a function of the match.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass
class KeyReport:
    """What became of every key of a source and of every tensor of the model.

    Attributes:
        source: the file.
        used: key of the source -> the tensors of the model that it went into.
        unused: key of the source -> why the model needs it not.
        missing: tensor of the model -> why the source need not have it.
        unexplained: what is none of these: a line for each key or tensor.
    """

    source: str
    used: dict[str, list[str]] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)

    def lines(self, verbose: bool = False) -> list[str]:
        """Returns the report: how many keys were used, and groups by reason; `verbose` names every key and where it went."""
        lines = [f"{self.source}: {len(self.used)} keys used, {len(self.unused)} not, {len(self.missing)} missing"]
        if verbose:
            lines += [f"  {key} -> {', '.join(names)}" for key, names in self.used.items()]
        for what, reasons in (("not used", self.unused), ("missing", self.missing)):
            for reason, names in _by_reason(reasons).items():
                lines.append(f"  {what}, {reason}: {', '.join(names) if verbose else _few(names)}")
        return lines + [f"  UNEXPLAINED: {line}" for line in self.unexplained]

    def require(self) -> None:
        """Checks that everything is explained.

        Raises:
            InputError: it is not; the message names what is left.
        """
        if self.unexplained:
            raise InputError(
                f"{self.source}: {len(self.unexplained)} keys cannot be explained, so the outputs would not be the source's: "
                f"{_few(self.unexplained)}"
            )


@dataclass(frozen=True)
class Converted:
    """Weights of another framework for Detectron2.

    Attributes:
        state: tensors under Detectron2's names.
        config: a LazyConfig, complete for prediction and training, under which the model gives the source's own outputs.
        classes: their names in the order of the model's outputs; None where the source does not tell.
        report: what became of the source's keys.
    """

    state: dict[str, Tensor]
    config: DictConfig
    classes: list[str] | None
    report: KeyReport


class Conversion:
    """Moves the tensors of a source one by one, and remembers which."""

    def __init__(self, source: str, tensors: Mapping[str, Tensor]) -> None:
        """Takes the tensors.

        Args:
            source: what messages call it, such as the path of the file.
            tensors: of the source, by key.
        """
        self._tensors = tensors
        self._state: dict[str, Tensor] = {}
        self._absent: list[tuple[str, str]] = []
        self._lacked: list[tuple[str, str]] = []
        self._report = KeyReport(source)

    def put(self, name: str, *keys: str, make: Callable[..., Tensor] | None = None) -> None:
        """Sets a tensor of the model.

        Args:
            name: in the model's state dict.
            keys: of the source; one that it lacks is reported in the end.
            make: makes the tensor of those of the keys; None: it is that of the one key.
        """
        if name in self._state:
            self._report.unexplained.append(f"{', '.join(keys)} and another key are both for the model's {name}")
        absent = [key for key in keys if key not in self._tensors]
        self._absent += [(key, name) for key in absent]
        if absent:
            return
        for key in keys:
            self._report.used.setdefault(key, []).append(name)
        tensors = [self._tensors[key] for key in keys]
        try:
            (tensor,) = [make(*tensors)] if make else tensors
        except IndexError as error:  # of fewer dimensions than it needs
            self._report.unexplained.append(f"{', '.join(keys)} cannot become {name} ({error})")
            return
        self._state[name] = tensor.detach().clone().contiguous()

    def fill(self, name: str, tensor: Tensor, reason: str) -> None:
        """Sets a tensor of the model to what it is where the source has none, and says why the source has none."""
        self._state[name] = tensor
        self._report.missing[name] = reason

    def rename(self, rules: Sequence[Rule]) -> None:
        """Sets the tensors that the keys' names tell: of every key by the first rule that matches it."""
        for key in self._tensors:
            for pattern, name in rules:
                match = re.fullmatch(pattern, key)
                if match:
                    self.put(match.expand(name) if isinstance(name, str) else name(match), key)
                    break

    def leave(self, pattern: str, reason: str) -> None:
        """Says why keys that nothing has taken are not needed; the pattern must match the whole key."""
        for key in self._tensors:
            if key not in self._report.used and re.fullmatch(pattern, key):
                self._report.unused[key] = reason

    def lacks(self, pattern: str, reason: str) -> None:
        """Says why tensors of the model are not in the source; the pattern must match the whole name."""
        self._lacked.append((pattern, reason))

    def finish(self, config: DictConfig, classes: list[str] | None) -> Converted:
        """Compares with the config's model.

        Raises:
            InputError: a key of the source or a tensor of the model is not explained, or a shape is another; the message names them.
        """
        report, shapes = self._report, model_shapes(config)
        report.unexplained += [f"{key} is not there ({name} needs it)" for key, name in self._absent]
        wanted = {name for _, name in self._absent}
        for name, tensor in self._state.items():
            if name not in shapes:
                report.unexplained.append(f"{name}: the model has no such tensor")
            elif tuple(tensor.shape) != shapes[name]:
                told = f"{tuple(tensor.shape)} and not {shapes[name]}"
                report.unexplained.append(f"{name} would be of shape {told}")
        for name in shapes:
            if name in self._state or name in wanted:
                continue
            reason = next((reason for pattern, reason in self._lacked if re.fullmatch(pattern, name)), None)
            if reason is None:
                report.unexplained.append(f"nothing for the model's {name}")
            else:
                report.missing[name] = reason
        known = report.used.keys() | report.unused.keys()
        report.unexplained += [f"{key} is needed by nothing" for key in self._tensors if key not in known]
        report.require()
        return Converted(self._state, config, classes, report)


def model_shapes(config: DictConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor in the state dict of the config's model."""
    from detectron2.config import instantiate

    with torch.device("meta"):  # no memory, and no time for random numbers
        model = instantiate(config.model)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def write(converted: Converted, output: Path, *, overwrite: bool = False) -> list[Path]:
    """Writes ``model.pth``, ``config.yaml``, and ``classes.json`` where no registered data set has these classes.

    ``config.yaml`` is a whole LazyConfig whose ``train.init_checkpoint`` is the absolute path of the weights. ``classes.json`` is a COCO
    file without images, which stands in the place of the data sets so that predictions have names, and that says the category ids: 1, 2,
    and so on.

    Args:
        converted: what to write.
        output: the folder; made where it is not there.
        overwrite: replace these files.

    Returns:
        The files.

    Raises:
        InputError: they are there already, or cannot be written.
    """
    import json

    from maskrcnn_ext.config.config_yaml import save_config
    from maskrcnn_ext.engine.checkpoint import files

    weights, config_file, classes_file = (output / name for name in ("model.pth", "config.yaml", "classes.json"))
    there = [file for file in (weights, config_file) if file.exists()]
    if there and not overwrite:
        raise InputError(f"{there[0]} is there already: choose another place, or --overwrite it")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {output} ({error.strerror or error})") from error
    cfg = converted.config.copy()
    cfg.train.init_checkpoint = str(weights.absolute())
    written = [weights, config_file]
    classes = _foreign_classes(converted)
    if classes:
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        files.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}), classes_file)
        cfg.dataloader.train.dataset.names = f"coco:{classes_file.absolute()}@{output.absolute()}"
        cfg.dataloader.test.dataset.names = cfg.dataloader.train.dataset.names
        written.append(classes_file)
    files.write({"model": converted.state}, weights)
    save_config(cfg, config_file)
    return written


def _foreign_classes(converted: Converted) -> list[str]:
    """Names of the classes, made up where there are none; empty where those of the config's data set are the same."""
    from maskrcnn_ext.engine.checkpoint.class_rows import dataset_classes

    known, count = (
        dataset_classes(converted.config.dataloader.test.dataset.names),
        converted.config.model.roi_heads.num_classes,
    )
    if converted.classes is None:
        return [] if len(known) == count else [f"class {number}" for number in range(1, count + 1)]
    if len(converted.classes) != count:
        raise InputError(
            f"{converted.report.source}: {len(converted.classes)} class names for the model's {count} classes"
        )
    return [] if converted.classes == known else converted.classes


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, reason in reasons.items():
        groups[reason].append(name)
    return groups


def _few(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
