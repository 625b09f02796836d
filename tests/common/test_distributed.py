"""Decisions that all processes share, and the model inside DistributedDataParallel."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_ext.common.distributed import decide_on_main, unwrap_ddp
from maskrcnn_ext.errors import InputError


def work(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = nn.Linear(2, 1)
    found = {
        "unwrapped": unwrap_ddp(DistributedDataParallel(model)) is model,
        "decision": decide_on_main(lambda: f"of rank {comm.get_rank()}"),
    }
    try:
        decide_on_main(fail)
    except InputError as error:
        found["error"] = str(error)
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def fail() -> None:
    raise InputError("wrong metric")


@pytest.mark.slow
def test_two_processes_decide_as_the_main_one(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    expected = {"unwrapped": True, "decision": "of rank 0", "error": "wrong metric"}
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [expected, expected]


def test_one_process_decides_alone():
    assert decide_on_main(lambda: 3) == 3
    with pytest.raises(InputError, match="wrong metric"):
        decide_on_main(fail)
