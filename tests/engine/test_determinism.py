"""Deterministic runs repeat their numbers, restore all settings, and name operations without a deterministic algorithm."""

import os
import random

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from torch import nn

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.engine.determinism import deterministic, explain_nondeterminism, weights_hash


def settings():
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


def draw():
    return random.random(), np.random.random(), torch.rand(1).item()


@pytest.mark.parametrize("workspace", [None, ":16:8", "odd"])
def test_settings_and_generators_are_restored(monkeypatch, workspace):
    if workspace is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    else:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    before = settings()
    seed_all_rng(5)
    expected = draw()
    seed_all_rng(5)
    with deterministic(1):
        assert settings() == (True, False, True, False, ":16:8" if workspace == ":16:8" else ":4096:8")
        first = draw()
    assert settings() == before
    assert draw() == expected
    with deterministic(1):
        assert draw() == first
    with pytest.raises(ZeroDivisionError), deterministic(1):
        raise ZeroDivisionError
    assert settings() == before


def test_seeds_differ_and_a_missing_one_is_0():
    drawn = []
    for seed in (0, 1, -1):
        with deterministic(seed):
            drawn.append(draw())
    assert drawn[0] == drawn[2] != drawn[1]


def test_an_operation_without_a_deterministic_algorithm_is_named():
    refused = RuntimeError(
        "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'.\nYou can turn off determinism just for this operation, or ..."
    )
    message = str(explain_nondeterminism(refused))
    assert "grid_sampler_2d_backward_cuda has no deterministic algorithm on this device" in message
    assert "\n" not in message


def test_a_real_refusal_of_torch_is_recognised():
    """put_ is the one operation that raises on a CPU as well."""
    with pytest.raises(InputError, match="put_ has no deterministic algorithm on this device"), deterministic(0):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)


def test_other_errors_are_not_changed():
    assert explain_nondeterminism(RuntimeError("out of memory")) is None
    with pytest.raises(RuntimeError, match="out of memory"), deterministic(0):
        raise RuntimeError("out of memory")


def test_workers_draw_the_same_twice(tmp_path):
    class Noise(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, _):
            return random.random(), float(np.random.random()), torch.rand(1).item()

    def drawn(seed):
        with deterministic(seed):
            return [tuple(map(float, sample)) for sample in torch.utils.data.DataLoader(Noise(), num_workers=2)]

    assert drawn(3) == drawn(3) != drawn(4)


def test_a_hash_sees_names_shapes_types_and_bytes():
    def model(**changes):
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        for key, value in changes.items():
            made.get_submodule("1").register_buffer(key, value)
        return made

    same = weights_hash(model())
    assert same == weights_hash(model())
    changed = [model(), model().double(), model().bfloat16(), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(3))]
    with torch.no_grad():
        changed[0].get_parameter("0.weight")[0, 0] += 1e-7
    changed += [model(a=torch.zeros(2)), model(a=torch.zeros(1, 2)), model(b=torch.zeros(2)), model(a=torch.zeros(0))]
    renamed = nn.Sequential()
    renamed.add_module("a", model()[0])
    renamed.add_module("b", model()[1])
    hashes = {same, weights_hash(renamed), *map(weights_hash, changed)}
    assert len(hashes) == len(changed) + 2
    assert weights_hash(model().to(memory_format=torch.preserve_format)) == same


def test_channels_last_has_the_same_hash():
    convolution = nn.Conv2d(3, 4, 3)
    before = weights_hash(convolution)
    assert weights_hash(convolution.to(memory_format=torch.channels_last)) == before


def test_mask_rcnn_trains_to_the_same_weights_twice(shapes):
    """On a CPU every operation of it has a deterministic algorithm."""

    def run(seed):
        with deterministic(seed), EventStorage():
            cfg = get_config("domains/shapes.py")
            cfg.model.backbone.out_channels = 16
            cfg.model.roi_heads.mask_head.conv_dims = [16, 16]
            cfg.model.roi_heads.batch_size_per_image = 16
            cfg.model.proposal_generator.update(pre_nms_topk=[100, 100], post_nms_topk=[50, 50])
            cfg.dataloader.train.dataset.names = f"coco:{shapes}@{shapes.parent / 'images'}"
            cfg.dataloader.train.update(total_batch_size=2, num_workers=2)
            model = instantiate(cfg.model).train()
            cfg.optimizer.params.model = model
            optimizer = instantiate(cfg.optimizer)
            losses = []
            for _, batch in zip(range(2), instantiate(cfg.dataloader.train), strict=False):
                loss = sum(model(batch).values())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return losses, weights_hash(model)

    assert run(7) == run(7)
