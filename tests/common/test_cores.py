"""The cores of a process are those of its job and its container, and loaders of shipped configs start no more workers."""

import os

import pytest

from maskrcnn_ext.common.cores import usable_cores

CODE = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
from maskrcnn_ext import get_config
loaders = [get_config(name).dataloader for name in sys.argv[1:]]
print({found.num_workers for loader in loaders for found in (loader.train, loader.test)})
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_one_core_has_one_worker(run_python):
    done = run_python("-c", CODE, "mask_rcnn_r50_fpn_1x.py", "domains/nuclei.py", "domains/spleen.py")
    assert done.stdout.strip() == "{1}"


@pytest.mark.parametrize(
    ("text", "most"), [("50000 100000\n", 1), ("150000 100000\n", 2), ("max 100000\n", 10**6), ("", 10**6)]
)
def test_the_limit_of_a_container(tmp_path, text, most):
    file = tmp_path / "cpu.max"
    unlimited = usable_cores(file)
    file.write_text(text)
    assert usable_cores(file) == min(unlimited, most)
