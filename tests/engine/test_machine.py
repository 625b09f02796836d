"""The description of the machine, its software and its memory."""

import pytest
import torch

from maskrcnn_ext.engine.machine import describe_machine, describe_memory, package_versions


def test_memory_of_workers_that_have_ended_is_skipped():
    assert "0 live workers 0.0 GiB" in describe_memory([2**22 + 1])


def test_versions_and_machine():
    versions = package_versions("pytest", "no-such-package")
    assert {"python", "torch", "torchvision", "detectron2", "numpy", "maskrcnn_ext", "cuda"} <= versions.keys()
    assert versions["pytest"] == pytest.__version__
    assert "no-such-package" not in versions
    machine = describe_machine()
    assert machine["threads"] == torch.get_num_threads()
    assert machine["memory_bytes"] > 2**28
    assert len(machine["gpus"]) == torch.cuda.device_count()
