"""Faults of a loader are one line that names the sample; without a fault nothing changes."""

import os
import random
import re
import signal
from traceback import clear_frames

import numpy as np
import pytest
import torch
from detectron2.data import DatasetFromList, MapDataset, build_detection_train_loader
from detectron2.data.build import build_batch_data_loader
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader, Dataset

from maskrcnn_ext import InputError
from maskrcnn_ext.engine.loader_faults import GuardedLoader, WorkerRecords, explain_loader_error
from maskrcnn_ext.engine.resume.loader import ResumableLoader


def records(count=8):
    return [
        {"file_name": f"/data/{index}.png", "image_id": 100 + index, "width": 10 + index % 2 * 10, "height": 15}
        for index in range(count)
    ]


class Mapper:
    """Adds random numbers of all generators; at image 105 it does what `fault` says."""

    def __init__(self, fault=None):
        self.fault = fault

    def __call__(self, record):
        if record["image_id"] == 105 and self.fault is not None:
            self.fault()
        return {**record, "drawn": (random.random(), np.random.random(), torch.rand(1).item())}


def make_loader(fault=None, *, workers=2, grouped=True):
    return build_detection_train_loader(
        records(), mapper=Mapper(fault), total_batch_size=2, num_workers=workers, aspect_ratio_grouping=grouped
    )


def first(loader, count=6):
    return [batch for _, batch in zip(range(count), loader, strict=False)]


def run(make, timeout=None):
    """Returns the batches of a training and the random numbers that it draws afterwards."""
    seed_all_rng(3)
    loader = make()
    batches = first(iter(loader if timeout is None else GuardedLoader(loader, timeout)))
    drawn = torch.rand(1).item(), np.random.random(), random.random()
    end(loader)
    return batches, drawn


def end(loader):
    """Breaks the cycle of a resumable loader and its iterator, so that torch ends the workers at once."""
    if isinstance(loader, ResumableLoader):
        vars(loader).clear()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("resumable", [False, True])
def test_batches_and_random_numbers_are_the_same(workers, grouped, resumable):
    def plain():
        loader = make_loader(workers=workers, grouped=grouped)
        return ResumableLoader(loader) if resumable else loader

    assert run(plain) == run(plain, timeout=60)


def fails(loader, count=20):
    try:
        first(loader, count)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    return message


class Hang:
    """Reads a pipe without a writer."""

    def __init__(self, folder):
        self.pipe = folder / "pipe"
        os.mkfifo(self.pipe)

    def __call__(self):
        self.pipe.read_bytes()


def test_a_hanging_loader_names_the_sample(tmp_path):
    loader = ResumableLoader(make_loader(Hang(tmp_path)))
    message = fails(GuardedLoader(loader, timeout=1))
    end(loader)
    assert re.match(
        r"the data loader returned no sample for 1 seconds \(train.loader_timeout\): "
        r"worker [01] \(pid \d+\) was loading /data/5.png \(image 105\) for \d+ s: check whether",
        message,
    )
    assert message.count("was loading") == 1, "the other worker waits and is not blamed"


def test_a_limit_without_workers_logs_that_it_has_no_effect(caplog):
    first(GuardedLoader(make_loader(workers=0), timeout=5), 2)
    assert "train.loader_timeout=5 has no effect without loader workers" in caplog.text
    loader = make_loader(workers=0)
    caplog.clear()  # Detectron2 logs as it builds a loader
    assert len(first(GuardedLoader(loader), 2)) == 2
    assert not caplog.records


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_reported_with_memory_and_the_sample():
    message = fails(GuardedLoader(make_loader(kill)))
    assert "was killed by a signal (Killed): worker " in message or "ended: worker" in message
    assert "was loading /data/5.png (image 105) for 0 s" in message
    assert "lower dataloader.train.num_workers" in message
    assert re.search(
        r"memory \d+\.\d GiB, available \d+\.\d GiB, this process \d+\.\d GiB, \d live workers? \d", message
    )
    assert re.search(r"/dev/shm free \d+\.\d GiB", message)


def test_a_worker_that_leaves_is_reported():
    message = fails(GuardedLoader(make_loader(lambda: os._exit(3), grouped=False)))
    assert "a worker of the data loader ended: worker " in message
    assert "/data/5.png (image 105)" in message


def complain():
    raise InputError("/data/5.png: the image is cut off")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_in_the_data_is_one_line(workers):
    assert fails(GuardedLoader(make_loader(complain, workers=workers))) == "/data/5.png: the image is cut off"


def complain_of():
    try:
        raise KeyError("bbox")
    except KeyError as error:
        raise InputError("annotation 3: `bbox` is missing") from error


def test_a_mistake_with_a_cause_is_one_line():
    assert fails(GuardedLoader(make_loader(complain_of))) == "annotation 3: `bbox` is missing"


def test_other_errors_keep_their_traceback():
    def divide():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError, match="DataLoader worker process") as caught:
        first(GuardedLoader(make_loader(divide)), 20)
    clear_frames(caught.tb)


def test_a_death_that_surfaces_elsewhere_can_be_explained():
    """Torch raises from a signal handler, at any point of the training process."""
    guarded = GuardedLoader(make_loader())
    batches = iter(guarded)
    next(batches)
    pid = guarded._records.pids()[0]
    try:
        raise RuntimeError(f"DataLoader worker (pid {pid}) is killed by signal: Killed. ")
    except RuntimeError as error:
        message = str(guarded.explain(error))
    assert "was killed by a signal (Killed)" in message
    assert str(pid) in message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. "), "shared memory is too small"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. "), "a library crashed on this file"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "process 7, 8, whose sample is unknown"),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"),
            r"have no shared memory left: enlarge /dev/shm",
        ),
        (RuntimeError("DataLoader timed out after 30 seconds"), "for 30 seconds .*the sample is unknown"),
    ],
)  # fmt: skip
def test_known_errors_of_torch(error, said):
    message = str(explain_loader_error(error))
    assert re.search(said, message)
    assert "\n" not in message


def test_unknown_errors_are_left_alone():
    assert explain_loader_error(RuntimeError("CUDA out of memory")) is None
    assert explain_loader_error(InputError("already one line")) is None


class Numbers(Dataset):
    """A data set without file names."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"width": 2, "height": 1, "index": index}


def test_samples_without_file_names_are_numbered():
    def mapper(sample):
        if sample["index"] == 5:
            kill()
        return sample

    sampler = torch.utils.data.SequentialSampler(Numbers())
    loader = build_batch_data_loader(MapDataset(Numbers(), mapper), sampler, total_batch_size=1, num_workers=1)
    assert "was loading record 5 for" in fails(GuardedLoader(loader))


def test_the_sample_of_an_unknown_data_set():
    class Fatal(Numbers):
        def __getitem__(self, index):
            kill()

    assert "whose sample is unknown" in fails(GuardedLoader(DataLoader(Fatal(), num_workers=1)))


def test_own_settings_of_a_loader_stay(tmp_path):
    """Its worker_init_fn runs, and its own timeout is used by default."""
    marks = tmp_path / "mark"
    loader = DataLoader(
        MapDataset(DatasetFromList(records()), Mapper()),
        num_workers=1,
        timeout=50,
        collate_fn=lambda samples: samples,
        worker_init_fn=lambda worker: marks.write_text(str(worker)),
    )
    assert len(first(GuardedLoader(loader), 3)) == 3
    assert marks.read_text() == "0"
    assert loader.timeout == 50


def test_records_are_truncated_and_cleared():
    records = WorkerRecords(2)
    assert records.read() == []
    records.write(1, "ä" * 2000)
    (record,) = records.read()
    assert (record.worker, record.pid) == (1, os.getpid())
    assert 900 < len(record.sample.encode()) < 1024
    records.clear(1)
    assert records.read() == []
    assert records.pids() == [os.getpid()]
