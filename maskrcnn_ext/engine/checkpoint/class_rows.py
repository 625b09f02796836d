"""Copies the weights of each class from its rows in a checkpoint to its rows in the model, matched by class name."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.data.registry.catalog import read_class_names
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.dct import DCTMaskHead

logger = logging.getLogger(__name__)

# The meaning of an index along an axis: a class (its name or BACKGROUND) or SHARED for all classes, and a number within it.
Label = tuple[object, int]
BACKGROUND, SHARED = object(), object()


@dataclass(frozen=True)
class Axis:
    """How one axis of a layer depends on the classes.

    Attributes:
        number: number of the axis.
        per_class: number of consecutive indices per class; None to divide the size by the number of classes.
        background: whether the background follows as one more class.
        after_shared: whether indices that all classes share precede those of the classes.

    Example:
        >>> Axis(per_class=2).labels(4, ["cat", "dog"])
        [('cat', 0), ('cat', 1), ('dog', 0), ('dog', 1)]
    """

    number: int = 0
    per_class: int | None = 1
    background: bool = False
    after_shared: bool = False

    def labels(self, size: int, classes: Sequence[str]) -> list[Label] | None:
        """Returns the meaning of each of `size` indices; None if the size does not fit, as in a class-agnostic layer."""
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
    rf"{_MASK}(kind_predictor|patch_predictor)\.(weight|bias)": [Axis(per_class=None)],
    # A convolution has one row per class, a fully connected layer a whole mask per class.
    rf"{_MASK}(predictor|coarse_head\.prediction)\.(weight|bias)": [Axis(per_class=None)],
    # The input of PointRend's layers is the features followed by the coarse logits of all classes.
    rf"{_MASK}point_head\.fc\d+\.weight": [Axis(1, after_shared=True)],
    rf"{_MASK}point_head\.predictor\.weight": [Axis(), Axis(1, after_shared=True)],
    rf"{_MASK}point_head\.predictor\.bias": [Axis()],
    # The rows of Implicit PointRend are the parameters of another network: see _parameter_labels.
    _PARAMETERS: [Axis()],
}


def class_axes(key: str, model: nn.Module) -> list[Axis]:
    """Returns the axes of the model's tensor `key` that depend on the classes; an empty list if none does."""
    axes = next((axes for pattern, axes in _LAYERS.items() if re.fullmatch(pattern, key)), [])
    if not axes:
        return []
    path, layer, _ = key.rsplit(".", 2)
    owner = model.get_submodule(path)
    # DCT-Mask predicts one mask for all classes, and RefineMask's finest mask may be one, beside coarser masks of each class.
    if layer == "predictor" and isinstance(owner, DCTMaskHead):
        return []
    shared = isinstance(owner, nn.ModuleList) and owner[int(layer)].out_channels < owner[0].out_channels
    return [] if shared else axes


def differ_by_classes(key: str, model: nn.Module, old: Sequence[int], new: Sequence[int]) -> bool:
    """Returns whether two shapes of the model's tensor `key` are equal except for the number of classes."""
    numbers = {axis.number for axis in class_axes(key, model)}
    return len(old) == len(new) and {axis for axis in range(len(old)) if old[axis] != new[axis]} <= numbers


@dataclass(frozen=True)
class ClassRows:
    """Class names of a checkpoint and of a model, in the order of their outputs.

    Attributes:
        theirs: names of the checkpoint.
        ours: names of the model.

    Example::

        train.init_checkpoint=coco.pth train.loading.class_names=coco_2017_train
    """

    theirs: Sequence[str]
    ours: Sequence[str]

    def __post_init__(self) -> None:
        """Checks the names.

        Raises:
            InputError: a name occurs twice, or no class is in both.
        """
        for whose, names in (("train.loading.class_names", self.theirs), ("the data set", self.ours)):
            repeated = sorted({name for name in names if list(names).count(name) > 1})
            if repeated:
                raise InputError(f"{whose}: class {repeated[0]!r} occurs twice: give each output another name")
        if not set(self.theirs) & set(self.ours):
            raise InputError(
                f"train.loading.class_names: no class of the checkpoint ({short_list(self.theirs)}) is in the data set "
                f"({short_list(self.ours)}): use the names of the data set, or set the key to null"
            )

    @classmethod
    def from_config(cls, class_names: str | Sequence[str], dataset: str) -> ClassRows:
        """Returns the class names of a config.

        Args:
            class_names: ``train.loading.class_names``, a list of names or a data set that has them.
            dataset: the training set.
        """
        theirs = read_class_names(class_names) if isinstance(class_names, str) else [str(name) for name in class_names]
        return cls(theirs, read_class_names(dataset))

    def apply(self, state: dict[str, Tensor], model: nn.Module) -> None:
        """Resizes the class layers of `state` to the model: the rows of common classes come from `state`, the others from the model.

        Layers that do not depend on the class, such as those of class-agnostic heads, are not changed.

        Args:
            state: weights of the checkpoint under the model's names; changed in place.
            model: a GeneralizedRCNN of Detectron2.

        Raises:
            InputError: the number of classes of the checkpoint or the model differs from the number of names.
        """
        self._check_counts(state, model)
        changed = [key for key in model.state_dict() if key in state and self._replace(key, state, model)]
        new = [name for name in self.ours if name not in self.theirs]
        logger.info(
            "Class rows by name, in %d tensors: %d of %d classes come from the checkpoint's %d; newly initialised: %s",
            len(changed),
            len(self.ours) - len(new),
            len(self.ours),
            len(self.theirs),
            short_list(new) or "none",
        )

    def _check_counts(self, state: dict[str, Tensor], model: nn.Module) -> None:
        scores = next((value for key, value in state.items() if re.fullmatch(rf"{_BOX}cls_score\.bias", key)), None)
        if scores is None:
            raise InputError(
                "train.loading.class_names: the checkpoint has no class scores (roi_heads.box_predictor.cls_score): set the key to null"
            )
        for whose, count, names, where in (
            ("the checkpoint", len(scores) - 1, self.theirs, "the key"),
            ("the model", model.roi_heads.num_classes, self.ours, "the data set"),
        ):
            if count != len(names):
                raise InputError(
                    f"train.loading.class_names: {whose} has {plural(count, 'class', 'classes')}, but "
                    f"{where} names {len(names)} ({short_list(names)})"
                )

    def _replace(self, key: str, state: dict[str, Tensor], model: nn.Module) -> bool:
        """Replaces one tensor; returns whether it is a class layer that both models have."""
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
            if theirs is None or ours is None or _class_slots(theirs) != _class_slots(ours):
                return False
            place = {label: index for index, label in enumerate(theirs)}
            common = [index for index, label in enumerate(ours) if label in place]
            places.append((axis.number, torch.tensor(common), torch.tensor([place[ours[index]] for index in common])))
        _copy_block(new, old.to(new.dtype), places)
        state[key] = new
        return True


def _copy_block(new: Tensor, old: Tensor, places: list[tuple[int, Tensor, Tensor]]) -> None:
    """Writes a block of `old` into `new`.

    Args:
        new: changed in place.
        old: equal in shape except for the axes in `places`.
        places: axis number, indices in `new` and indices in `old`.
    """
    (axis, to, where), *rest = places
    block = old.index_select(axis, where)
    if rest:
        part = new.index_select(axis, to)
        _copy_block(part, block, rest)
        block = part
    new.index_copy_(axis, to, block)


def _class_slots(labels: list[Label]) -> set[tuple[bool, int]]:
    """Returns the numbers of shared and per-class indices, which are equal for the same layer with other classes."""
    return {(owner is SHARED, slot) for owner, slot in labels}


def _parameter_labels(key: str, model: nn.Module) -> Callable[[int, Sequence[str]], list[Label] | None]:
    """Returns the labels of the rows of Implicit PointRend's ``parameter_head.prediction``.

    The rows are the weights of the layers of the point network, then their biases; those of the last layer are per class.
    """
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
