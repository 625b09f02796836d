"""Carries what a checkpoint has learned of a class to the place that this class has in the model, by name."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.dct import DCTMaskHead

logger = logging.getLogger(__name__)

# What an index along an axis stands for: a class (its name or BACKGROUND) or what all classes SHARE, and a number within it.
Label = tuple[object, int]
BACKGROUND, SHARED = object(), object()


@dataclass(frozen=True)
class Axis:
    """How one axis of a layer depends on the classes.

    Attributes:
        number: of the axis.
        per_class: indices that each class has, one class after the other; None for as many as there are.
        background: one more class at the end.
        after_shared: the classes stand behind indices that belong to all.
    """

    number: int = 0
    per_class: int | None = 1
    background: bool = False
    after_shared: bool = False

    def labels(self, size: int, classes: Sequence[str]) -> list[Label] | None:
        """Returns what each of `size` indices stands for; None where the size does not fit: a layer that is the same for all classes."""
        names = [*classes, BACKGROUND] if self.background else list(classes)
        shared = size - len(names) if self.after_shared else 0
        count = self.per_class or size // len(names)
        if shared < 0 or count < 1 or shared + count * len(names) != size:
            return None
        return [(SHARED, slot) for slot in range(shared)] + [(name, slot) for name in names for slot in range(count)]


# Layers of Detectron2's heads and of this package's.
_BOX = r"roi_heads\.box_predictor\.(\d+\.)?"
_MASK = r"roi_heads\.mask_head\.(base\.)*"
_PARAMETERS = rf"{_MASK}parameter_head\.prediction\.(weight|bias)"
_LAYERS: dict[str, list[Axis]] = {
    rf"{_BOX}cls_score\.(weight|bias)": [Axis(background=True)],
    rf"{_BOX}bbox_pred\.(weight|bias)": [Axis(per_class=4)],
    rf"{_MASK}fcn\.predictor\.(weight|bias)": [Axis(background=True)],
    rf"{_MASK}(mask_predictor\.1|boundary_predictor\.1|predictors\.\d+|iou_predictor)\.(weight|bias)": [Axis()],
    # A convolution has a row a class, a fully connected layer a whole mask.
    rf"{_MASK}(predictor|coarse_head\.prediction)\.(weight|bias)": [Axis(per_class=None)],
    # PointRend's layers see the coarse logits of all classes behind their features.
    rf"{_MASK}point_head\.fc\d+\.weight": [Axis(1, after_shared=True)],
    rf"{_MASK}point_head\.predictor\.weight": [Axis(), Axis(1, after_shared=True)],
    rf"{_MASK}point_head\.predictor\.bias": [Axis()],
    # Implicit PointRend's rows are the parameters of a network of their own: see _parameter_labels.
    _PARAMETERS: [Axis()],
}


def class_axes(key: str, model: nn.Module) -> list[Axis]:
    """Returns the axes of the model's tensor `key` that depend on the classes; none where it does not."""
    axes = next((axes for pattern, axes in _LAYERS.items() if re.fullmatch(pattern, key)), [])
    # A predictor of one mask for all classes.
    return [] if axes and isinstance(model.get_submodule(key.rsplit(".", 2)[0]), DCTMaskHead) else axes


def differ_by_classes(key: str, model: nn.Module, old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether two shapes of the model's tensor `key` may differ because of other classes, and by nothing else."""
    numbers = {axis.number for axis in class_axes(key, model)}
    return len(old) == len(new) and {axis for axis in range(len(old)) if old[axis] != new[axis]} <= numbers


def dataset_classes(name: str) -> list[str]:
    """Returns the class names of a registered data set, or of a string such as ``coco:/data/a.json@/data/images``.

    Raises:
        InputError: there is no such data set, or it cannot be read.
    """
    from detectron2.data import MetadataCatalog

    ensure_registered(name)
    # Known without reading for Detectron2's own and for what has been read before.
    classes = MetadataCatalog.get(name).get("thing_classes")
    return list(classes) if classes else load_dataset(name).classes


@dataclass(frozen=True)
class ClassRows:
    """Class names of a checkpoint and of a model, in the order of their outputs."""

    theirs: Sequence[str]
    ours: Sequence[str]

    def __post_init__(self) -> None:
        """Checks.

        Raises:
            InputError: a name stands twice, or no class is in both.
        """
        for whose, names in (("train.loading.class_names", self.theirs), ("the data set", self.ours)):
            twice = sorted({name for name in names if list(names).count(name) > 1})
            if twice:
                raise InputError(f"{whose}: class {twice[0]!r} stands twice: each output has a name of its own")
        if not set(self.theirs) & set(self.ours):
            raise InputError(
                f"train.loading.class_names: no class of the checkpoint ({_some(self.theirs)}) is in the data set ({_some(self.ours)}): "
                "write the names as there, or leave the key null"
            )

    @classmethod
    def from_config(cls, class_names: str | Sequence[str], dataset: str) -> ClassRows:
        """Takes ``train.loading.class_names``, names or a data set that has them, and the data set that is trained on."""
        theirs = dataset_classes(class_names) if isinstance(class_names, str) else [str(name) for name in class_names]
        return cls(theirs, dataset_classes(dataset))

    def apply(self, state: dict[str, Tensor], model: nn.Module) -> None:
        """Replaces the class layers of `state` by such that fit the model: rows of common classes from `state`, the others the model's.

        Layers that are the same for all classes, such as those of class-agnostic heads, are left as they are.

        Args:
            state: of the checkpoint, under the model's names.
            model: of Detectron2's GeneralizedRCNN, with ``roi_heads.num_classes``.

        Raises:
            InputError: the checkpoint or the model has another number of classes than there are names.
        """
        self._check_counts(state, model)
        done = [key for key in model.state_dict() if key in state and self._replace(key, state, model)]
        rest = [name for name in self.ours if name not in self.theirs]
        logger.info(
            "Class rows by name, in %d tensors: %d of %d classes come from the checkpoint's %d; fresh: %s",
            len(done),
            len(self.ours) - len(rest),
            len(self.ours),
            len(self.theirs),
            _some(rest) if rest else "none",
        )

    def _check_counts(self, state: dict[str, Tensor], model: nn.Module) -> None:
        scores = next((value for key, value in state.items() if re.fullmatch(rf"{_BOX}cls_score\.bias", key)), None)
        if scores is None:
            raise InputError(
                "train.loading.class_names: the checkpoint has no class scores (roi_heads.box_predictor.cls_score): leave the key null"
            )
        for whose, count, names, where in (
            ("the checkpoint", len(scores) - 1, self.theirs, "the key"),
            ("the model", model.roi_heads.num_classes, self.ours, "the data set"),
        ):
            if count != len(names):
                raise InputError(
                    f"train.loading.class_names: {whose} has {count} classes, but {where} names {len(names)} ({_some(names)})"
                )

    def _replace(self, key: str, state: dict[str, Tensor], model: nn.Module) -> bool:
        """Replaces one tensor; returns whether it was one of classes, of the same layer in both."""
        old, new = state[key], model.state_dict()[key].detach().cpu().clone()
        axes = class_axes(key, model)
        agnostic = getattr(getattr(model.roi_heads, "mask_head", None), "num_classes", None) == 1 < len(self.ours)
        if not axes or not differ_by_classes(key, model, old.shape, new.shape) or (agnostic and re.match(_MASK, key)):
            return False
        places: list[tuple[int, Tensor, Tensor]] = []
        for axis in axes:
            get_labels = _parameter_labels(key, model) if re.fullmatch(_PARAMETERS, key) else axis.labels
            theirs = get_labels(old.shape[axis.number], self.theirs)
            ours = get_labels(new.shape[axis.number], self.ours)
            if theirs is None or ours is None or _slots(theirs) != _slots(ours):
                return False
            place = {label: index for index, label in enumerate(theirs)}
            common = [index for index, label in enumerate(ours) if label in place]
            places.append((axis.number, torch.tensor(common), torch.tensor([place[ours[index]] for index in common])))
        _copy(new, old.to(new.dtype), places)
        state[key] = new
        return True


def _copy(new: Tensor, old: Tensor, places: list[tuple[int, Tensor, Tensor]]) -> None:
    """Writes a block of `old` into `new`: for some axes (number, indices in `new`, indices in `old`); the others are equal."""
    (axis, to, where), *rest = places
    block = old.index_select(axis, where)
    if rest:
        part = new.index_select(axis, to)
        _copy(part, block, rest)
        block = part
    new.index_copy_(axis, to, block)


def _slots(labels: list[Label]) -> set[tuple[bool, int]]:
    """What there is beside the classes: equal for one layer with other classes."""
    return {(owner is SHARED, slot) for owner, slot in labels}


def _parameter_labels(key: str, model: nn.Module) -> Callable[[int, Sequence[str]], list[Label] | None]:
    """The rows of ``parameter_head.prediction``: weights of the layers of the points' network, then biases; the last layer's by class."""
    point_head = model.get_submodule(key[: key.index("parameter_head")] + "point_head")
    *hidden, (_, per_class) = point_head.shapes
    weights, biases = sum(rows * columns for rows, columns in hidden), sum(rows for rows, _ in hidden)

    def labels(size: int, classes: Sequence[str]) -> list[Label] | None:
        if size != weights + biases + (per_class + 1) * len(classes):
            return None
        return [
            *((SHARED, slot) for slot in range(weights)),
            *((name, slot) for name in classes for slot in range(per_class)),
            *((SHARED, weights + slot) for slot in range(biases)),
            *((name, per_class) for name in classes),
        ]

    return labels


def _some(names: Sequence[str]) -> str:
    """The first few."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
