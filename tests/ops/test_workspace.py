"""Memory is reused, but never while a tensor uses it."""

import multiprocessing
import random
import threading

import pytest
import torch

from maskrcnn_ext.ops.workspace import Workspace

LARGE = (600, 700)


def test_memory_is_reused_once_no_tensor_uses_it():
    workspace = Workspace()
    first = workspace.empty(*LARGE)
    place = first.data_ptr()
    assert workspace.empty(*LARGE).data_ptr() != place
    del first
    assert workspace.empty(500, 700).data_ptr() == place  # a smaller one fits, too


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("keep", [lambda x: x[3:9].T, lambda x: x.detach(), lambda x: x.untyped_storage()])
def test_live_references_keep_the_memory(keep, inference):
    workspace = Workspace()
    with torch.inference_mode(inference):
        tensor = workspace.empty(*LARGE).fill_(1)
        kept, place = keep(tensor), tensor.data_ptr()
        del tensor
        other = workspace.empty(*LARGE).fill_(2)
        assert other.data_ptr() != place
        assert set(
            torch.empty(0).set_(kept).tolist() if isinstance(kept, torch.UntypedStorage) else kept.unique().tolist()
        ) == {1}
        del kept
        assert workspace.empty(*LARGE).data_ptr() == place


def test_memory_outlives_its_workspace():
    tensor = Workspace().empty(*LARGE).fill_(3)
    assert tensor.unique().tolist() == [3]


def test_the_lowest_free_memory_is_used_first():
    workspace = Workspace()
    first, second, third = (workspace.empty(*LARGE) for _ in range(3))
    start = first.data_ptr()
    assert start < second.data_ptr() < third.data_ptr() < start + 2**23
    del first, second
    assert workspace.empty(1000, 700).data_ptr() == start  # two neighbours make one gap
    wide = workspace.empty(1300, 700)
    assert wide.data_ptr() > third.data_ptr()
    assert workspace.empty(*LARGE).data_ptr() == start


@pytest.mark.parametrize("seed", range(3))
def test_live_tensors_do_not_overlap(seed):
    choose = random.Random(seed)
    workspace, held = Workspace(), []
    for number in range(300):
        if held and choose.random() < 0.5:
            tensor, value = held.pop(choose.randrange(len(held)))
            assert (tensor == value).all()
        else:
            held.append((workspace.empty(choose.randrange(300, 3000), 1000).fill_(number), number))
    assert all((tensor == value).all() for tensor, value in held)


def test_a_tensor_larger_than_an_arena(monkeypatch):
    monkeypatch.setattr("maskrcnn_ext.ops.workspace._ARENA_BYTES", 3_000_000)
    workspace = Workspace()
    held = [workspace.empty(*LARGE).fill_(number) for number in range(4)]
    held.append(workspace.empty(2000, 700).fill_(4))
    assert [tensor.unique().tolist() for tensor in held] == [[0], [1], [2], [3], [4]]


def test_each_thread_has_its_own_pool():
    workspace = Workspace()
    place = workspace.empty(*LARGE).data_ptr()
    found = []
    thread = threading.Thread(target=lambda: found.append(workspace.empty(*LARGE)))
    thread.start()
    thread.join()
    assert found[0].data_ptr() != place
    assert workspace.empty(*LARGE).data_ptr() == place


def test_small_tensors_and_images():
    workspace = Workspace()
    assert workspace.empty(2, 3).shape == (2, 3)
    image = workspace.channels_last(2, 64, 50, 60)
    assert image.shape == (2, 64, 50, 60)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert workspace.channels_last(0, 64, 50, 60).numel() == 0


def test_a_forked_process_writes_into_its_own_copy():
    workspace = Workspace()
    free = workspace.empty(*LARGE).fill_(1)
    kept = workspace.empty(*LARGE).fill_(2)
    del free

    def overwrite() -> None:
        torch.set_num_threads(1)  # a fork has none of its parent's threads
        kept.fill_(3)
        workspace.empty(*LARGE).fill_(4)

    child = multiprocessing.get_context("fork").Process(target=overwrite)
    reused = workspace.empty(*LARGE).fill_(5)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert (kept.unique().tolist(), reused.unique().tolist()) == ([2], [5])
