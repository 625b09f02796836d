"""An optimized model in forked processes, in threads and beside a second one: every result equals the serial one."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from maskrcnn_ext import optimize
from tests.inference.optimization.test_matrix import make_model

IMAGES = [torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(seed)) * 255 for seed in range(4)]
ROUNDS = 3


@pytest.fixture(scope="module")
def models():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskrcnn_ext.ops.workspace._MIN_BYTES", 0)  # all tensors in the workspace
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield [optimize(make_model(), dtype="fp32") for _ in range(2)]
        torch.set_num_threads(before)


def predict(model, index):
    with torch.inference_mode():
        found = model.inference([{"image": IMAGES[index]}])[0]["instances"]
    masks = tuple(rle["counts"] for rle in found.pred_masks.rles)
    return found.pred_boxes.tensor.tolist(), found.scores.tolist(), masks


@pytest.fixture(scope="module")
def serial(models):
    return [predict(models[0], index) for index in range(len(IMAGES))]


def test_forked_processes(models, serial):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def work(first):
        order = [(first + index) % len(IMAGES) for index in range(len(IMAGES))] * ROUNDS
        queue.put([predict(models[0], index) == serial[index] for index in order])

    workers = [context.Process(target=work, args=(first,)) for first in (0, 2)]
    for worker in workers:
        worker.start()
    here = [predict(models[0], index) == expected for index, expected in enumerate(serial)]
    there = [same for _ in workers for same in queue.get(timeout=60)]
    for worker in workers:
        worker.join()
    assert all(here)
    assert all(there)


def test_threads(models, serial):
    order = list(range(len(IMAGES))) * ROUNDS
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda index: predict(models[0], index), order)) == [serial[index] for index in order]


def test_two_models(models, serial):
    for index, expected in enumerate(serial):
        assert [predict(model, index) for model in models] == [expected, expected]
