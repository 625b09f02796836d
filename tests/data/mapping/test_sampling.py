"""Samplers that draw rare classes more often: the frequencies, the seeds, the override."""

import itertools
from collections import Counter

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from maskrcnn_ext import InputError, get_config, get_dataset_dicts
from maskrcnn_ext.data.mapping.sampling import balance_factors, class_balanced_sampler, repeat_factor_sampler


def records(*images):
    return [{"annotations": [{"category_id": c, "iscrowd": 0} for c in image]} for image in images]


# 80 images of class 0, 16 of class 1, 4 of class 2.
SKEWED = records(*[[0]] * 80, *[[1]] * 16, *[[2]] * 4)


def drawn(sampler, dataset, count):
    found = Counter()
    for index in itertools.islice(iter(sampler), count):
        found.update(a["category_id"] for a in dataset[index]["annotations"])
    total = found.total()
    return {category: number / total for category, number in found.items()}


def test_repeat_factors_are_those_of_the_paper():
    # sqrt(0.64 / 0.16) = 2 and sqrt(0.64 / 0.04) = 4: 80, 32 and 16 images an epoch.
    found = drawn(repeat_factor_sampler(dataset=SKEWED, threshold=0.64, seed=0), SKEWED, 128 * 40)
    assert found == pytest.approx({0: 80 / 128, 1: 32 / 128, 2: 16 / 128}, abs=1e-9)
    # sqrt(0.09 / 0.04) = 1.5: 4 images are drawn 6 times in the mean.
    found = drawn(repeat_factor_sampler(dataset=SKEWED, threshold=0.09, seed=0), SKEWED, 102 * 200)
    assert found == pytest.approx({0: 80 / 102, 1: 16 / 102, 2: 6 / 102}, abs=0.003)


def test_balanced_classes_are_met_alike():
    found = drawn(class_balanced_sampler(dataset=SKEWED, seed=0), SKEWED, 240 * 20)
    assert found == pytest.approx(dict.fromkeys(range(3), 1 / 3), abs=1e-9)
    halfway = balance_factors(SKEWED, 0.5, 20)
    assert halfway[[0, 80, 96]].tolist() == pytest.approx([1, 5**0.5, 20**0.5])
    assert balance_factors(SKEWED, 0, 20).tolist() == [1] * 100
    assert balance_factors(SKEWED, 1, 8)[-1] == 8


def test_crowds_empty_images_and_mixed_ones():
    images = records([0, 0, 1], [], [0])
    images[2]["annotations"].append({"category_id": 1, "iscrowd": 1})
    # Shares 3/4 and 1/4: weights (4/3 + 4/3 + 4) / 3 and 4/3.
    assert balance_factors(images, 1, 20).tolist() == pytest.approx([5 / 3, 1, 1])
    assert balance_factors(records([], []), 1, 20).tolist() == [1, 1]


@pytest.mark.parametrize("make", [repeat_factor_sampler, class_balanced_sampler])
def test_a_seed_fixes_an_endless_stream(make):
    first, again, other = (list(itertools.islice(iter(make(dataset=SKEWED, seed=seed)), 1000)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(first) == 1000


@pytest.mark.parametrize("make", [repeat_factor_sampler, class_balanced_sampler])
def test_processes_share_one_stream(make):
    alone = list(itertools.islice(iter(make(dataset=SKEWED, seed=1)), 20))
    shares = []
    for rank in range(2):
        sampler = make(dataset=SKEWED, seed=1)
        sampler._rank, sampler._world_size = rank, 2
        shares.append(list(itertools.islice(iter(sampler), 10)))
    assert [index for pair in zip(*shares, strict=True) for index in pair] == alone


def test_a_config_takes_it_with_its_own_data_set(people):
    cfg = get_config("mask_rcnn_r18_fpn_scratch.py").dataloader.train
    cfg.dataset.names = people
    cfg.update(total_batch_size=1, num_workers=0, aspect_ratio_grouping=False)
    cfg.sampler = L(repeat_factor_sampler)(dataset="${..dataset}", threshold=0.5, seed=4)
    names = [sample["file_name"] for (sample,) in itertools.islice(instantiate(cfg), 7)]
    dataset = get_dataset_dicts(people)
    expected = itertools.islice(iter(repeat_factor_sampler(dataset=dataset, threshold=0.5, seed=4)), 7)
    assert names == [dataset[index]["file_name"] for index in expected]


def test_wrong_arguments_are_errors_of_one_line():
    with pytest.raises(InputError, match="no images"):
        repeat_factor_sampler(dataset=[])
    with pytest.raises(InputError, match="threshold is 2, expected a share"):
        repeat_factor_sampler(dataset=SKEWED, threshold=2)
    with pytest.raises(InputError, match="strength is -1"):
        class_balanced_sampler(dataset=SKEWED, strength=-1)
    with pytest.raises(InputError, match=r"max_factor is 0\.5"):
        class_balanced_sampler(dataset=SKEWED, max_factor=0.5)
    assert torch.is_tensor(balance_factors(SKEWED, 1, 20))
