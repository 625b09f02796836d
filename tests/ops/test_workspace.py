"""Memory that is used again: never while anything stands on it."""

import threading

import pytest
import torch

from maskrcnn_ext.ops.workspace import Workspace

LARGE = (600, 700)


def test_memory_is_used_again_as_soon_as_nothing_stands_on_it():
    workspace = Workspace()
    first = workspace.empty(*LARGE)
    place = first.data_ptr()
    assert workspace.empty(*LARGE).data_ptr() != place
    del first
    assert workspace.empty(500, 700).data_ptr() == place  # a smaller one fits, too


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("keep", [lambda x: x[3:9].T, lambda x: x.detach(), lambda x: x.untyped_storage()])
def test_whatever_is_kept_keeps_the_memory(keep, inference):
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


def test_memory_that_is_too_large_is_left_for_others():
    workspace = Workspace()
    workspace.empty(3000, 700)
    place = workspace.empty(3000, 700).data_ptr()
    assert workspace.empty(*LARGE).data_ptr() != place
    assert workspace.empty(3000, 700).data_ptr() == place


def test_what_nobody_has_used_for_long_is_given_back():
    workspace = Workspace()
    workspace.empty(3000, 700)
    for _ in range(600):
        workspace.empty(*LARGE)
    workspace.empty(1000, 700)  # new, so that the old is looked through
    assert sum(len(block.memory) for block in workspace._blocks) == 4 * 700 * (600 + 1000)


def test_threads_have_their_own():
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
