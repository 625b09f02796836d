"""The training loader: samples depend on the seed and on nothing else."""

import itertools
import multiprocessing

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data.samplers import TrainingSampler

from maskrcnn_ext import get_dataset_dicts
from maskrcnn_ext.data.mapping.augmentation import SeededMapper, build_train_loader
from maskrcnn_ext.data.mapping.augmentation.loader import ClosingMapper, stream_position


def make_mapper(augmentations, mask_format, **rest):
    return DatasetMapper(
        True,
        augmentations=augmentations,
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format=mask_format,
        **rest,
    )


def stream(people, num_workers, count=8):
    """The first samples of a seeded loader, with every kind of random number in play."""
    mapper = make_mapper([T.RandomCrop("relative", (0.6, 0.6)), T.RandomFlip()], "bitmask", recompute_boxes=True)
    records = get_dataset_dicts(people)
    loader = build_train_loader(
        records,
        mapper=mapper,
        copy_paste={"probability": 0.5},
        seed=5,
        sampler=TrainingSampler(len(records), seed=2),
        total_batch_size=1,
        num_workers=num_workers,
    )
    return [(sample["file_name"], sample["image"]) for (sample,) in itertools.islice(loader, count)]


def test_any_number_of_workers_gives_the_same_samples(people):
    alone, one, two = (stream(people, num_workers) for num_workers in (0, 1, 2))
    for others in (one, two):
        assert [name for name, _ in alone] == [name for name, _ in others]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(alone, others, strict=True))
    visits = [image for name, image in alone if name == alone[0][0]]
    assert len(visits) == 2, "a second epoch has begun"
    assert not torch.equal(*visits), "its augmentations differ from visit to visit"


def _one_of_two(rank, folder, people):
    torch.set_num_threads(1)  # as workers do: a forked process has none of the pool's threads
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    records = get_dataset_dicts(people)
    mapper = SeededMapper(mapper=make_mapper([T.RandomCrop("relative", (0.6, 0.6))], "bitmask"), seed=5)
    done = [mapper(records[index])["image"] for index in itertools.islice(TrainingSampler(len(records), seed=2), 4)]
    torch.save(done, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_any_number_of_processes_shares_one_stream(people, tmp_path):
    records = get_dataset_dicts(people)
    processes = [
        multiprocessing.get_context("fork").Process(target=_one_of_two, args=(rank, tmp_path, people))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        exitcode = process.exitcode
        process.kill()
        assert exitcode == 0
    mapper = SeededMapper(mapper=make_mapper([T.RandomCrop("relative", (0.6, 0.6))], "bitmask"), seed=5)
    alone = [mapper(records[index])["image"] for index in itertools.islice(TrainingSampler(len(records), seed=2), 8)]
    shared = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for position, image in enumerate(alone):
        assert torch.equal(image, shared[position % 2][position // 2])


def test_a_seeded_mapper_leaves_the_trainings_random_numbers_alone(people):
    mapper = SeededMapper(mapper=make_mapper([T.RandomFlip()], "bitmask"), seed=0)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(1)
    torch.manual_seed(1)
    mapper(get_dataset_dicts(people)[0])
    assert (np.random.rand(), torch.rand(1)) == expected


def test_a_record_that_cannot_be_mapped_takes_no_place():
    answers = iter([False, True])

    def draw(_):
        number = np.random.rand()
        return number if next(answers) else None

    mapper = SeededMapper(mapper=draw, seed=0)
    assert mapper({}) is None
    assert mapper({}) == SeededMapper(mapper=lambda _: np.random.rand(), seed=0)({})


def test_mixing_ends_after_a_number_of_samples():
    mapper = ClosingMapper(first=lambda _: {"mixed": True}, later=lambda _: {"mixed": False}, num_samples=3)
    assert [mapper({})["mixed"] for _ in range(5)] == [True, True, True, False, False]
    token = stream_position.set(1)
    try:
        assert mapper({})["mixed"]
    finally:
        stream_position.reset(token)
