"""Suppression in Triton: it agrees with torchvision, and compiles for GPUs."""

import json

import pytest
import torch

from maskrcnn_ext.ops.sorted_nms import sorted_nms
from tests.conftest import ROOT
from tests.ops.test_sorted_nms import lists

TRITON = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from tests.ops.test_sorted_nms import expected, lists
from maskrcnn_ext.ops.sorted_nms_triton import sorted_nms
for number, length in ((3, 1), (2, 70), (2, 300)):
    boxes, valid = lists(0, number, length, 40)
    valid[0] = False
    print(json.dumps(torch.equal(sorted_nms(boxes, valid, 0.5), expected(boxes, valid, 0.5))))
"""


def test_tritons_kernel_agrees_in_its_interpreter(run_python):
    pytest.importorskip("triton")
    done = run_python("-c", TRITON, ROOT, env={"TRITON_INTERPRET": "1"})
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [True] * 3


@pytest.mark.gpu
@pytest.mark.parametrize("length", [1, 70, 1000, 6000])
def test_cuda_agrees_with_the_cpu(length):
    boxes, valid = lists(0, 4, length, 40)
    assert torch.equal(sorted_nms(boxes.cuda(), valid.cuda(), 0.5).cpu(), sorted_nms(boxes, valid, 0.5))


@pytest.mark.parametrize("number", [1, 100, 1000, 6000])
def test_suppression_is_compiled(compile_launches, number):
    pytest.importorskip("triton")
    from maskrcnn_ext.ops import sorted_nms_triton

    def launch():
        sorted_nms_triton.sorted_nms(torch.zeros(3, number, 4), torch.ones(3, number, dtype=torch.bool), 0.5)

    (kernel,) = compile_launches(sorted_nms_triton, launch)
    assert kernel.asm["cubin"]
