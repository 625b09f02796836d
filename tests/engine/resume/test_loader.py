"""A resumed loader continues with the same images and random numbers, with any number of workers."""

import io
import random

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import SeededMapper
from maskrcnn_ext.common.random_state import get_random_state, set_random_state
from maskrcnn_ext.engine.resume.loader import ResumableLoader

SIZES = [(64, 48), (48, 64)]  # width, height


def draw(record):
    """A mapper that records its draws from each generator; their number varies."""
    for _ in range(record["image_id"] % 3):
        random.random()
        torch.rand(2)
    return {**record, "drawn": (random.random(), float(np.random.rand()), float(torch.rand(())), random.gauss(0, 1))}


def records(count=11):
    return [{"image_id": i, "width": SIZES[i % 3 == 0][0], "height": SIZES[i % 3 == 0][1]} for i in range(count)]


def build(*, workers, grouped, batch=2, mapper=draw, seed=7):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    return build_detection_train_loader(
        records(),
        mapper=mapper,
        sampler=TrainingSampler(11, seed=3),
        total_batch_size=batch,
        aspect_ratio_grouping=grouped,
        num_workers=workers,
    )


@pytest.fixture
def resumable():
    """Wraps loaders, and ends their workers after the test."""
    made = []

    def wrap(loader):
        made.append(ResumableLoader(loader))
        return made[-1]

    yield wrap
    for loader in made:
        loader.close()


def taken(loader, count):
    return [next(loader) for _ in range(count)]


def plain(state):
    """Returns a state as it is read back from a checkpoint."""
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_the_batches_are_detectron2s(workers, grouped, resumable):
    stock = iter(build(workers=workers, grouped=grouped))
    expected = taken(stock, 9)
    del stock
    left = draw(records()[2])
    assert taken(resumable(build(workers=workers, grouped=grouped)), 9) == expected
    assert draw(records()[2]) == left, "nothing more has been drawn"


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("workers", [0, 2, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 3))])
@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_the_batches_after_a_checkpoint_are_those_of_an_unbroken_run(workers, grouped, before, resumable):
    unbroken = resumable(build(workers=workers, grouped=grouped))
    taken(unbroken, before)
    unbroken.start()
    data, state = plain(unbroken.state_dict()), plain(get_random_state())
    expected = taken(unbroken, 8)

    resumed = resumable(build(workers=workers, grouped=grouped, seed=99))
    assert resumed.load_state_dict(data)
    resumed.start()
    set_random_state(state)
    assert taken(resumed, 8) == expected
    assert plain(resumed.state_dict())["drawn"] == plain(unbroken.state_dict())["drawn"]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 4), st.booleans())
def test_any_number_of_interruptions_changes_nothing(parts, batch, grouped):
    expected = taken(ResumableLoader(build(workers=0, grouped=grouped, batch=batch)), sum(parts))
    found, data, state = [], None, None
    for part in parts:
        loader = ResumableLoader(build(workers=0, grouped=grouped, batch=batch))
        if data is not None:
            loader.load_state_dict(data)
            loader.start()
            set_random_state(state)
        found += taken(loader, part)
        data, state = plain(loader.state_dict()), plain(get_random_state())
    assert found == expected


def test_the_images_continue_with_another_number_of_workers(resumable):
    unbroken = resumable(build(workers=0, grouped=False))
    taken(unbroken, 4)
    data = plain(unbroken.state_dict())
    expected = [record["image_id"] for batch in taken(unbroken, 4) for record in batch]
    resumed = resumable(build(workers=2, grouped=False))
    assert not resumed.load_state_dict(data)
    found = [record["image_id"] for batch in taken(resumed, 4) for record in batch]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mapper_that_seeds_itself_continues_as_well(workers, resumable):
    mapper = SeededMapper(mapper=draw, seed=5)
    unbroken = resumable(build(workers=workers, grouped=True, mapper=mapper))
    taken(unbroken, 3)
    data = plain(unbroken.state_dict())
    expected = taken(unbroken, 5)
    resumed = resumable(build(workers=workers, grouped=True, mapper=SeededMapper(mapper=draw, seed=5)))
    resumed.load_state_dict(data)
    assert taken(resumed, 5) == expected


def test_a_loader_of_another_type_is_iterated_as_it_is():
    loader = ResumableLoader([[1], [2], [3]])
    assert list(loader) == [[1], [2], [3]]
    assert loader.state_dict() == {}
    assert not ResumableLoader([[1]]).load_state_dict({})
