"""Checkpoints are saved when and as Detectron2 does, rotated across resumed runs, and equal on all processes."""

import multiprocessing
import resource

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import hooks
from detectron2.utils import comm

from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.checkpoint.files import read
from maskrcnn_ext.engine.hooks.checkpointing import Checkpointing
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import toy_trainer


def training(folder, *more, **options):
    trainer = toy_trainer()
    checkpointer = Checkpointer(trainer.model, str(folder), trainer=trainer)
    hook = Checkpointing(checkpointer, **options)
    trainer.register_hooks([hook, *more])
    return trainer, checkpointer, hook


def files_of(folder):
    return sorted(file.name for file in folder.glob("*.pth"))


@pytest.mark.parametrize("period", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("max_to_keep", [None, 1, 2])
@pytest.mark.parametrize("prefix", ["model", "my_net"])
def test_same_files_as_detectron2s(tmp_path, period, max_to_keep, prefix):
    options = {"period": period, "max_to_keep": max_to_keep, "file_prefix": prefix}
    (tmp_path / "stock").mkdir()
    (tmp_path / "ours").mkdir()
    stock = toy_trainer()
    checkpointer = Checkpointer(stock.model, str(tmp_path / "stock"), trainer=stock)
    stock.register_hooks([hooks.PeriodicCheckpointer(checkpointer, **options)])
    stock.train(0, 6)
    trainer, _, _ = training(tmp_path / "ours", **options)
    trainer.train(0, 6)
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "stock") != []
    for name in ["last_checkpoint", *files_of(tmp_path / "stock")]:
        if name.endswith(".pth"):
            ours, theirs = read(tmp_path / "ours" / name), read(tmp_path / "stock" / name)
            assert ours["iteration"] == theirs["iteration"]
            assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in theirs["model"])
        else:
            assert (tmp_path / "ours" / name).read_text() == (tmp_path / "stock" / name).read_text()


def test_rotation_includes_files_written_before_a_resume(tmp_path):
    trainer, _, _ = training(tmp_path, period=1, max_to_keep=2)
    trainer.train(0, 3)
    assert files_of(tmp_path) == ["model_0000001.pth", "model_0000002.pth", "model_final.pth"]
    trainer, checkpointer, _ = training(tmp_path, period=1, max_to_keep=2)
    checkpointer.resume_or_load("", resume=True)
    trainer.train(trainer.iter + 1, 5)
    assert files_of(tmp_path) == ["model_0000003.pth", "model_0000004.pth", "model_final.pth"]


def test_rotation_keeps_files_of_other_runs(tmp_path):
    trainer, _, _ = training(tmp_path, period=3)
    trainer.train(0, 9)
    (tmp_path / "model_best.pth").touch()
    (tmp_path / "other_0000001.pth").touch()
    before = files_of(tmp_path)
    trainer, _, _ = training(tmp_path, period=2, max_to_keep=1)
    trainer.train(0, 4)
    assert files_of(tmp_path) == sorted({*before, "model_0000003.pth"})


def test_save_now_saves_once(tmp_path):
    class Stop(hooks.HookBase):
        def after_step(self):
            if self.trainer.iter == 3:
                self.trainer.stop("enough")

    trainer, _, hook = training(tmp_path, Stop(), period=3)
    trainer.train(0, 9)
    assert files_of(tmp_path) == ["model_0000002.pth"]
    hook.save_now()
    assert files_of(tmp_path) == ["model_0000002.pth", "model_0000003.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    written = (tmp_path / "model_0000003.pth").stat().st_mtime_ns
    hook.save_now()
    assert (tmp_path / "model_0000003.pth").stat().st_mtime_ns == written
    resumed, checkpointer, _ = training(tmp_path, period=3)
    checkpointer.resume_or_load("", resume=True)
    assert resumed.iter == 3


def test_save_now_after_the_end_does_nothing(tmp_path):
    trainer, _, hook = training(tmp_path, period=100)
    trainer.train(0, 3)
    hook.save_now()
    assert files_of(tmp_path) == ["model_final.pth"]


def test_collected_state_is_saved(tmp_path):
    calls = []

    def collect():
        calls.append(trainer.iter)
        return {"loop": {"calls": len(calls)}}

    trainer, _, _ = training(tmp_path, period=2, collect=collect)
    trainer.train(0, 4)
    assert calls == [1, 3]
    assert read(tmp_path / "model_0000001.pth")["loop"] == {"calls": 1}
    assert read(tmp_path / "model_final.pth")["loop"] == read(tmp_path / "model_0000003.pth")["loop"] == {"calls": 2}


@pytest.mark.parametrize("options", [{"period": 0}, {"period": 2, "max_to_keep": 0}])
def test_invalid_periods(tmp_path, options):
    with pytest.raises(InputError, match=r"train\.checkpointer: .* expected 1 or more"):
        training(tmp_path, **options)


class SmallDisk(hooks.HookBase):
    """Limits files to a thousand bytes after an iteration, like a full disk."""

    def __init__(self, iteration):
        self.iteration = iteration

    def after_step(self):
        if self.trainer.iter == self.iteration:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def limits():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, limits):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer, _, _ = training(tmp_path, SmallDisk(2), period=2)
    with pytest.raises(InputError, match=r"^cannot write .*model_0000003\.pth \(File too large; ") as error:
        trainer.train(0, 6)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(error.value)
    assert trainer.iter == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]
    trainer, checkpointer, _ = training(tmp_path, period=2)
    checkpointer.resume_or_load("", resume=True)
    assert trainer.iter == 1


def in_processes(function, folder, count):
    """Runs ``function(folder, rank, send)`` in processes of one group and returns the objects that they have sent.

    They must not train: autograd does not survive a fork.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    children = [
        context.Process(target=in_group, args=(function, folder, rank, count, theirs.send)) for rank in range(count)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        status = child.exitcode
        child.kill()
        assert status == 0
    return [ours.recv() for _ in range(count)]


def in_group(function, folder, rank, count, send):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    function(folder, rank, send)
    dist.barrier()
    dist.destroy_process_group()


def at(trainer, iteration):
    trainer.iter, trainer.start_iter, trainer.max_iter = iteration, 0, 6
    return trainer


def save_resume_and_fail(folder, rank, send):
    def collect():
        return {"ranks": comm.all_gather(rank)}

    trainer, checkpointer, hook = training(folder, period=2, collect=collect)
    for iteration in range(4):
        at(trainer, iteration)
        hook.after_step()
    dist.barrier()
    if rank == 0:
        (folder / "model_0000003.pth").write_bytes(b"half")
    dist.barrier()
    rest = checkpointer.resume_or_load("", resume=True)
    messages = []
    if rank == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    for call in (at(trainer, 4) and hook.save_now, lambda: checkpointer.resume_or_load("", resume=True)):
        try:
            call()
        except InputError as error:
            messages.append(str(error))
        dist.barrier()
        if rank == 0:
            (folder / "model_0000001.pth").write_bytes(b"half")
        dist.barrier()
    send((rank, trainer.iter, rest["ranks"], messages))


def test_all_processes_save_resume_and_fail_together(tmp_path):
    found = sorted(in_processes(save_resume_and_fail, tmp_path, 2))
    assert [rank for rank, *_ in found] == [0, 1]
    for _, _, ranks, (disk, nothing_whole) in found:
        assert ranks == [0, 1]
        assert "model_0000004.pth (File too large" in disk
        assert "every checkpoint in" in nothing_whole


def resume(folder, rank, send):
    trainer, checkpointer, _ = training(folder, period=2)
    checkpointer.resume_or_load("", resume=True)
    send(trainer.iter)


def test_all_processes_resume_from_the_same_file(tmp_path):
    trainer, _, _ = training(tmp_path, period=2)
    trainer.train(0, 6)
    (tmp_path / "model_final.pth").write_bytes(b"half")
    (tmp_path / "model_0000005.pth").write_bytes(b"half")
    assert in_processes(resume, tmp_path, 2) == [3, 3]


def load_own(folder, rank, send):
    _, checkpointer, _ = training(folder / str(rank), period=2)
    try:
        checkpointer.load(str(folder / str(rank) / "a.pth"))
    except InputError as error:
        send(str(error))


def test_a_file_missing_on_one_machine_is_an_error_on_all(tmp_path):
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    trainer = toy_trainer()
    Checkpointer(trainer.model, str(tmp_path / "0")).save("a")
    assert all("no such file on rank 1" in message for message in in_processes(load_own, tmp_path, 2))
