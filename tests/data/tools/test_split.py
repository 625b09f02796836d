"""Splitting: every image once, the same for a seed in any order, groups whole, classes in balance."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.records import Annotation, ImageRecord
from maskrcnn_ext.data.tools.split import group_names, split_images

SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


def make_records(kinds_of_images):
    return [
        ImageRecord(f"{index}.jpg", index, 8, 8, [Annotation(kind, (0, 0, 1, 1)) for kind in kinds])
        for index, kinds in enumerate(kinds_of_images)
    ]


def names_of(records):
    return [record.file_name for record in records]


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("count", [10, 47, 100])
def test_shares_are_met_to_an_image(count, stratify):
    rng = np.random.default_rng(count)
    records = make_records(rng.integers(0, 30, (count, 3)).tolist())
    parts = split_images(records, names_of(records), SHARES, stratify=stratify)
    assert sorted(index for indices in parts.values() for index in indices) == list(range(count))
    for part, indices in parts.items():
        assert abs(len(indices) - SHARES[part] * count) <= 1


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.sampled_from("abcdefghij"), min_size=20, max_size=60),
    seed=st.integers(0, 5),
    stratify=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_groups_stay_whole_and_the_order_of_the_input_does_not_matter(groups, seed, stratify, order):
    records = make_records([[ord(group) % 3] for group in groups])
    shares = {"train": 0.6, "val": 0.4}
    if len(set(groups)) < 2:
        return
    parts = split_images(records, groups, shares, seed=seed, stratify=stratify)
    of_group = {}
    for part, indices in parts.items():
        for index in indices:
            assert of_group.setdefault(groups[index], part) == part
    shuffled = list(range(len(groups)))
    order.shuffle(shuffled)
    again = split_images(
        [records[i] for i in shuffled], [groups[i] for i in shuffled], shares, seed=seed, stratify=stratify
    )
    assert {part: {shuffled[i] for i in indices} for part, indices in again.items()} == {
        part: set(indices) for part, indices in parts.items()
    }


def test_seeds_differ_and_chance_is_fair():
    records = make_records([[0]] * 100)
    drawn = Counter()
    for seed in range(60):
        parts = split_images(records, names_of(records), {"train": 0.8, "val": 0.2}, seed=seed)
        drawn.update(parts["val"])
    assert len(drawn) == 100, "every image is drawn by some seed"
    assert max(drawn.values()) < 30, "none by half of them; 12 are expected"


def test_stratified_parts_have_their_share_of_every_class():
    rng = np.random.default_rng(0)
    frequencies = np.array([0.5, 0.2, 0.1, 0.05, 0.02])
    records = make_records([np.flatnonzero(rng.random(5) < frequencies).tolist() for _ in range(1000)])
    totals = Counter(a.category for record in records for a in record.annotations)

    def deviation(stratify, seed):
        val = split_images(records, names_of(records), {"train": 0.8, "val": 0.2}, seed=seed, stratify=stratify)["val"]
        counts = Counter(a.category for index in val for a in records[index].annotations)
        return max(abs(counts[kind] - 0.2 * totals[kind]) for kind in totals)

    assert max(deviation(True, seed) for seed in range(5)) <= 2, "images of every class"
    assert min(deviation(False, seed) for seed in range(5)) > 2, "which chance does not give"


def test_groups_of_several_sizes_fill_the_parts():
    sizes = [30, 20, 10, 10, 5, 5, 5, 5, 4, 3, 2, 1]
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    records = make_records([[0]] * 100)
    parts = split_images(records, groups, SHARES)
    assert [abs(len(parts[part]) - 100 * share) <= 5 for part, share in SHARES.items()] == [True] * 3


def test_a_part_without_an_image_is_named():
    records = make_records([[0]] * 3)
    with pytest.raises(InputError, match="val gets none of 3 groups of images; give it a larger share"):
        split_images(records, names_of(records), {"train": 0.9, "val": 0.1})
    with pytest.raises(InputError, match="val gets none of 1 group"):
        split_images(records, ["a"] * 3, {"train": 0.5, "val": 0.5})


def test_groups_are_folders_or_matches_of_a_pattern():
    names = ["north/p1_a.jpg", "north/p2_a.jpg", "south/p1_b.jpg"]
    assert group_names(names, by="image") == names
    assert group_names(names, by="group") == ["north", "north", "south"]
    assert group_names(names, by="group", pattern=r"(p\d)_") == ["p1", "p2", "p1"]
    assert group_names(names, by="group", pattern=r"p\d") == ["p1", "p2", "p1"]
    with pytest.raises(InputError, match=r"'p\(1' is not a regular expression"):
        group_names(names, by="group", pattern="p(1")
    with pytest.raises(InputError, match=r"'p1' finds no group in 'north/p2_a\.jpg'"):
        group_names(names, by="group", pattern="p1")
    with pytest.raises(InputError, match=r"finds no group in 'north/p2_a\.jpg'"):
        group_names(names, by="group", pattern="p(1)|p2")
