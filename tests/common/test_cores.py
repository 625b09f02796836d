"""Loaders of shipped configs start no more workers than this process has cores."""

import os

import pytest

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
