"""Training samplers that draw images with rare classes more often, for ``dataloader.train.sampler``.

Each is an endless stream that all processes derive from one seed. The data set is read a second time for it. In a LazyConfig::

    dataloader.train.sampler = L(repeat_factor_sampler)(dataset="${..dataset}", threshold=0.01)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.common.ranges import is_at_least, is_share
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    import torch
    from detectron2.data.samplers import RepeatFactorTrainingSampler

Records = Sequence[dict[str, Any]]


def repeat_factor_sampler(
    *, dataset: Records, threshold: float = 0.001, seed: int | None = None
) -> RepeatFactorTrainingSampler:
    """Returns a sampler that repeats images with rare classes, as in LVIS (Gupta et al., arXiv:1908.03195, appendix B.2).

    An image is drawn max(1, sqrt(threshold / f)) times an epoch, where f is the share of images that contain its rarest class.

    Args:
        dataset: records in Detectron2's format.
        threshold: classes in a smaller share of the images are repeated. LVIS uses 0.001; small data sets need 0.1 or more.
        seed: the same in all processes; None draws one from numpy's generator, so that ``train.seed`` determines it.

    Raises:
        InputError: the data set is empty, or the threshold is not above 0 and up to 1.

    Example::

        dataloader.train.sampler = L(repeat_factor_sampler)(dataset="${..dataset}", threshold=0.01)
    """
    from detectron2.data.samplers import RepeatFactorTrainingSampler

    _check(dataset)
    if not is_share(threshold, above_zero=True):
        raise InputError(
            f"repeat_factor_sampler: threshold is {threshold}, expected a share of images, above 0 and up to 1"
        )
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dataset, threshold)
    return RepeatFactorTrainingSampler(factors, seed=seed)


def class_balanced_sampler(
    *, dataset: Records, strength: float = 1.0, max_factor: float = 20.0, seed: int | None = None
) -> RepeatFactorTrainingSampler:
    """Returns a sampler that draws objects of all classes about equally often, as far as images with several classes allow.

    The weight of an image is the mean over its objects of (1 / share of the object's class among all objects) ** strength. Images without
    objects have the smallest weight of all. Every image is drawn at least once an epoch.

    Args:
        dataset: records in Detectron2's format.
        strength: 0 draws all images alike, 1 balances fully.
        max_factor: an image is drawn at most this many times an epoch. Otherwise the only image of a class would be overfitted.
        seed: as for :func:`repeat_factor_sampler`.

    Raises:
        InputError: the data set is empty, or a number is out of range.

    Example::

        dataloader.train.sampler = L(class_balanced_sampler)(dataset="${..dataset}", max_factor=10)
    """
    from detectron2.data.samplers import RepeatFactorTrainingSampler

    _check(dataset)
    if not is_share(strength):
        raise InputError(f"class_balanced_sampler: strength is {strength}, expected a number from 0 to 1")
    if not is_at_least(max_factor, 1):
        raise InputError(f"class_balanced_sampler: max_factor is {max_factor}, expected at least 1")
    return RepeatFactorTrainingSampler(balance_factors(dataset, strength, max_factor), seed=seed)


def balance_factors(dataset: Records, strength: float, max_factor: float) -> torch.Tensor:
    """Returns how often each image is drawn in an epoch, (images,) float32, from 1 to `max_factor`.

    Example:
        >>> dataset = [{"annotations": [{"category_id": 0}]}] * 3 + [{"annotations": [{"category_id": 1}]}]
        >>> balance_factors(dataset, strength=1.0, max_factor=20.0)
        tensor([1., 1., 1., 3.])
    """
    import torch

    classes = [_classes(record) for record in dataset]
    counts = Counter(category for image in classes for category in image)
    total = counts.total()
    weights = [sum((total / counts[c]) ** strength for c in image) / len(image) if image else 0.0 for image in classes]
    smallest = min((weight for weight in weights if weight), default=1.0)
    return torch.tensor([max(weight / smallest, 1.0) for weight in weights]).clamp(max=max_factor)


def _classes(record: dict[str, Any]) -> list[int]:
    """Returns the class of every object other than crowds."""
    return [a["category_id"] for a in record.get("annotations", []) if not a.get("iscrowd", 0)]


def _check(dataset: Records) -> None:
    if not len(dataset):
        raise InputError("the data set has no images to draw from")
