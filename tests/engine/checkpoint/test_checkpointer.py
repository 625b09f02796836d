"""The checkpointer: files as Detectron2's, a way back from a damaged one, weights from every place that Detectron2 knows."""

import itertools
import logging
import os
import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.engine import SimpleTrainer, hooks
from detectron2.solver import LRMultiplier
from detectron2.utils.file_io import PathHandler, PathManager
from fvcore.common.param_scheduler import MultiStepParamScheduler
from torch import nn

from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.checkpoint.files import write
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import Toy, toy_samples


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(itertools.starmap(same, zip(one, other, strict=True)))
    return one == other


def stock_training(folder, checkpointer_class, seed=0):
    """Detectron2's own trainer with momentum and a schedule, on a model that takes no time."""
    torch.manual_seed(seed)
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    samples = itertools.cycle(toy_samples(64))
    trainer = SimpleTrainer(model, iter(lambda: list(itertools.islice(samples, 4)), None), optimizer)
    schedule = LRMultiplier(optimizer, MultiStepParamScheduler([1.0, 0.1, 0.01], milestones=[3, 6, 20]), max_iter=20)
    checkpointer = checkpointer_class(model, str(folder), trainer=trainer)
    trainer.register_hooks([hooks.LRScheduler(scheduler=schedule), hooks.PeriodicCheckpointer(checkpointer, 2)])
    return trainer, checkpointer


def state_of(trainer):
    return {"model": trainer.model.state_dict(), "trainer": trainer.state_dict()}


def linear(fill=0.0):
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, fill)
    return model


def saved_run(folder, *iterations, prefix="model"):
    """Saves checkpoints whose weights are their iteration."""
    for iteration in iterations:
        Checkpointer(linear(iteration), str(folder)).save(f"{prefix}_{iteration:07d}", iteration=iteration)


def resumed(folder, path="", **options):
    model = linear(-1)
    Checkpointer(model, str(folder), **options).resume_or_load(path, resume=True)
    return model.weight[0, 0].item()


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    content = bytearray(file.read_bytes())
    content[content.index(torch.load(file, weights_only=True)["model"]["weight"].numpy().tobytes())] ^= 1
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def remove(file):
    file.unlink()


def replace_by_list(file):
    write([1, 2], file)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("writer", [Checkpointer, DetectionCheckpointer])
@pytest.mark.parametrize("reader", [Checkpointer, DetectionCheckpointer])
def test_a_run_goes_on_as_with_detectron2(tmp_path, writer, reader):
    trainer, _ = stock_training(tmp_path, writer)
    trainer.train(0, 4)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["last_checkpoint", "model_0000001.pth", "model_0000003.pth", "model_final.pth"]
    other, checkpointer = stock_training(tmp_path, reader, seed=1)
    assert not same(state_of(other)["model"], state_of(trainer)["model"])
    rest = checkpointer.resume_or_load("", resume=True)
    assert rest["iteration"] == other.iter == 3
    assert same(state_of(other), {**state_of(trainer), "trainer": {**trainer.state_dict(), "iteration": 3}})
    # And the iterations that follow.
    stock, stock_checkpointer = stock_training(tmp_path, DetectionCheckpointer, seed=2)
    stock_checkpointer.resume_or_load("", resume=True)
    for run in (other, stock):
        run.train(4, 8)
    assert same(state_of(other), state_of(stock))


def test_files_hold_what_detectron2_writes(tmp_path):
    for name, kind in (("ours", Checkpointer), ("stock", DetectionCheckpointer)):
        (tmp_path / name).mkdir()
        trainer, _ = stock_training(tmp_path / name, kind)
        trainer.train(0, 4)
    for file in (tmp_path / "stock").iterdir():
        twin = tmp_path / "ours" / file.name
        if file.suffix == ".pth":
            assert same(torch.load(twin, weights_only=True), torch.load(file, weights_only=True))
        else:
            assert twin.read_text() == file.read_text() == "model_final.pth"


@pytest.mark.parametrize("damage", [truncate, flip, empty, remove, replace_by_list])
def test_a_damaged_newest_file_falls_back_to_the_one_before(tmp_path, damage, caplog):
    saved_run(tmp_path, 1, 3, 5)
    damage(tmp_path / "model_0000005.pth")
    assert resumed(tmp_path) == 3
    (message,) = warnings_of(caplog)
    assert "\n" not in message
    assert message.startswith(f"checkpoint {tmp_path}/model_0000005.pth")
    assert message.endswith("; resuming from model_0000003.pth, after iteration 3")


def test_several_damaged_files_are_all_told_of(tmp_path, caplog):
    saved_run(tmp_path, 1, 3, 5)
    truncate(tmp_path / "model_0000005.pth")
    flip(tmp_path / "model_0000003.pth")
    assert resumed(tmp_path) == 1
    (message,) = warnings_of(caplog)
    assert message.index("model_0000005.pth") < message.index("model_0000003.pth") < message.index("model_0000001.pth")


def test_no_whole_checkpoint_is_no_silent_start_from_scratch(tmp_path):
    saved_run(tmp_path, 1, 3)
    for file in tmp_path.glob("*.pth"):
        truncate(file)
    with pytest.raises(InputError, match=r"model_0000003.*model_0000001.*no other checkpoint in .* is whole") as error:
        resumed(tmp_path)
    assert "\n" not in str(error.value)


def test_nothing_there_loads_the_weights_to_begin_with(tmp_path):
    Checkpointer(linear(7), str(tmp_path)).save("start")
    folder = tmp_path / "run"
    folder.mkdir()
    assert not Checkpointer(linear(), str(folder)).has_checkpoint()
    assert resumed(folder, str(tmp_path / "start.pth")) == 7
    assert resumed(folder) == -1, "no weights were asked for"


def test_a_run_that_is_not_to_be_resumed_is_not(tmp_path):
    saved_run(tmp_path, 1)
    model = linear(-1)
    Checkpointer(model, str(tmp_path)).resume_or_load("", resume=False)
    assert model.weight[0, 0] == -1


def test_last_checkpoint_is_what_a_user_has_written_there(tmp_path):
    saved_run(tmp_path, 1, 3, 5)
    Checkpointer(linear(9), str(tmp_path)).tag_last_checkpoint("model_0000001.pth")
    assert resumed(tmp_path) == 1
    (tmp_path / "last_checkpoint").write_bytes(b"\xff\x00")
    assert resumed(tmp_path) == 5, "the newest, where the note is broken"


def test_a_run_that_was_killed_before_its_note_loses_nothing(tmp_path):
    saved_run(tmp_path, 1, 3)
    note = (tmp_path / "last_checkpoint").read_bytes()
    times = (tmp_path / "last_checkpoint").stat()
    saved_run(tmp_path, 5)
    (tmp_path / "last_checkpoint").write_bytes(note)
    os.utime(tmp_path / "last_checkpoint", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert resumed(tmp_path) == 5
    (tmp_path / "last_checkpoint").unlink()
    assert Checkpointer(linear(), str(tmp_path)).has_checkpoint()
    assert resumed(tmp_path) == 5


def test_a_younger_file_of_an_earlier_iteration_is_not_newer(tmp_path):
    # As after `cp -r`, which gives files the time at which it came to them.
    saved_run(tmp_path, 1, 3, 5)
    (tmp_path / "model_0000003.pth").touch()
    assert resumed(tmp_path) == 5


def test_the_best_weights_are_not_where_a_run_goes_on(tmp_path):
    saved_run(tmp_path, 1, 3)
    Checkpointer(linear(100), str(tmp_path)).save("model_best", iteration=3)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    assert resumed(tmp_path) == 3
    truncate(tmp_path / "model_0000003.pth")
    assert resumed(tmp_path) == 1


def test_a_final_file_put_there_to_begin_from_is_not_resumed(tmp_path):
    write({"model": linear(4).state_dict(), "iteration": 89999}, tmp_path / "model_final.pth")
    assert resumed(tmp_path) == -1
    assert resumed(tmp_path, str(tmp_path / "model_final.pth")) == 4


def test_left_overs_of_killed_writers_go(tmp_path):
    saved_run(tmp_path, 1)
    (tmp_path / ".model_0000003.pth.tmp").write_bytes(b"half")
    other = Checkpointer(linear(), str(tmp_path), save_to_disk=False)
    other.resume_or_load("", resume=True)
    assert (tmp_path / ".model_0000003.pth.tmp").exists(), "it may be another process that is writing"
    resumed(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]


def test_only_one_process_writes(tmp_path):
    Checkpointer(linear(), str(tmp_path), save_to_disk=False).save("model_0000001", iteration=1)
    Checkpointer(linear()).save("model_0000001", iteration=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}/nowhere.pth", r"nowhere\.pth: no such file: mend train\.init_checkpoint"),
        ("{}", "no such file"),
        ("detectron2://nowhere.pkl", r"detectron2://nowhere\.pkl: cannot be fetched \("),
        ("catalog://ImageNetPretrained/nowhere", r"catalog://.*cannot be fetched \(KeyError"),
        ("catalog://nowhere", "not present in the catalog"),
    ],
)
def test_weights_that_are_not_there(tmp_path, path, message):
    with pytest.raises(InputError, match=message) as error:
        Checkpointer(linear()).load(path.format(tmp_path))
    assert "\n" not in str(error.value)


def test_an_output_folder_elsewhere_is_an_error():
    with pytest.raises(InputError, match=r"train\.output_dir=s3://bucket/run: checkpoints are written into a folder"):
        Checkpointer(linear(), "s3://bucket/run")


class Attic(PathHandler):
    """Files of a folder as attic://<name>."""

    def __init__(self, folder):
        self.folder = folder

    def _get_supported_prefixes(self):
        return ["attic://"]

    def _get_local_path(self, path):
        return str(self.folder / path.removeprefix("attic://"))


def test_paths_that_detectron2_resolves(tmp_path):
    Checkpointer(linear(3), str(tmp_path)).save("a")
    PathManager.register_handler(Attic(tmp_path), allow_override=True)
    model = linear()
    Checkpointer(model).load("attic://a.pth")
    assert model.weight[0, 0] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no weights by name, but one list"),
        ({}, "holds no weights by name"),
        ({"model": None}, "holds no weights by name"),
        ({"state_dict": {"a": torch.ones(1)}, "meta": 1}, "'state_dict' is no tensor but one dict"),
        ({"model": {"a": [1, 2]}}, "'a' is no tensor but one list"),
        ({"model": {3: torch.ones(1)}}, "3 is no tensor"),
        ({"model": {"a": np.array(["x"])}}, "'a' is no tensor but one ndarray"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "pkl", "pyth"])
def test_files_that_hold_something_else(tmp_path, content, message, suffix):
    path = tmp_path / f"a.{suffix}"
    torch.save(content, path)
    with pytest.raises(InputError, match=message) as error:
        Checkpointer(linear()).load(str(path))
    assert "\n" not in str(error.value)


def test_a_program_in_the_weights_is_refused_unless_allowed(tmp_path):
    content = {"model": linear(5).state_dict(), "config": L(nn.Linear)(in_features=2, out_features=2)}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"omegaconf.*train\.loading\.allow_pickle=true"):
        Checkpointer(linear()).load(str(tmp_path / "a.pth"))
    model = linear()
    Checkpointer(model, allow_pickle=True).load(str(tmp_path / "a.pth"))
    assert model.weight[0, 0] == 5


def test_a_resumed_file_that_wants_to_run_a_program_is_not_skipped(tmp_path):
    saved_run(tmp_path, 1)
    content = {"model": linear(3).state_dict(), "iteration": 3, "config": L(nn.Linear)(in_features=2, out_features=2)}
    torch.save(content, tmp_path / "model_0000003.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    with pytest.raises(InputError, match=r"allow_pickle=true"):
        resumed(tmp_path)
    assert resumed(tmp_path, allow_pickle=True) == 3


def test_a_state_of_another_optimizer_is_one_line(tmp_path):
    trainer, _ = stock_training(tmp_path, Checkpointer)
    trainer.train(0, 2)
    other, checkpointer = stock_training(tmp_path, Checkpointer)
    other.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(
        InputError, match=r"model_final\.pth: its trainer does not fit this run \(ValueError: .*\)"
    ) as error:
        checkpointer.resume_or_load("", resume=True)
    assert "\n" not in str(error.value)


class Nest(nn.Module):
    def __init__(self, fill=0.0):
        super().__init__()
        self.backbone = nn.ModuleDict({"res2": nn.Conv2d(2, 2, 1), "res3": nn.Conv2d(2, 3, 1)})
        for parameter in self.parameters():
            nn.init.constant_(parameter, fill)


def arrays(fill, **shapes):
    return {name: np.full(shape, fill, dtype=np.float32) for name, shape in shapes.items()}


CAFFE2 = arrays(3, res2_w=(2, 2, 1, 1), res2_b=(2,), res3_w=(3, 2, 1, 1), res3_b=(3,), fc1000_w=(5, 3), fc1000_b=(5,))
ZOO = dict(zip(Nest().state_dict(), list(CAFFE2.values())[:4], strict=True))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zoo.pkl", {"model": ZOO, "__author__": "Detectron2 Model Zoo"}),
        (
            "torchvision.pkl",
            {
                "model": {key.removeprefix("backbone."): value for key, value in ZOO.items()},
                "__author__": "torchvision",
                "matching_heuristics": True,
            },
        ),
        ("R-50.pkl", CAFFE2),
        ("model_final.pkl", {"cfg": "x: 1", "blobs": {**CAFFE2, "res2_w_momentum": np.zeros(3)}}),
    ],
)
def test_pickles_of_detectron2s_zoo_load_as_detectron2_loads_them(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(content, protocol=2))
    ours, stock = Nest(), Nest()
    checkpointer = Checkpointer(ours)
    checkpointer.load(str(path))
    DetectionCheckpointer(stock).load(str(path))
    assert same(ours.state_dict(), stock.state_dict())
    assert all((parameter == 3).all() for parameter in ours.parameters())
    assert len(checkpointer.report.loaded) == 4
    assert not checkpointer.report.unexpected


def test_names_are_matched_by_their_ends_where_the_path_says_so(tmp_path):
    content = {key.removeprefix("backbone."): torch.as_tensor(value) for key, value in ZOO.items()}
    torch.save({"model": content}, tmp_path / "a.pth")
    model = Nest()
    checkpointer = Checkpointer(model)
    checkpointer.load(f"{tmp_path}/a.pth?matching_heuristics=True")
    assert all((parameter == 3).all() for parameter in model.parameters())
    other = Nest()
    checkpointer = Checkpointer(other)
    checkpointer.load(str(tmp_path / "a.pth"))
    assert all((parameter == 0).all() for parameter in other.parameters())
    assert sorted(checkpointer.report.unexpected) == sorted(content)


def test_one_name_that_fits_two_parts_is_one_line(tmp_path):
    torch.save({"weight": torch.zeros(2, 2, 1, 1)}, tmp_path / "a.pth")
    model = nn.ModuleDict({"a": nn.Conv2d(2, 2, 1), "b": nn.Conv2d(2, 2, 1)})
    with pytest.raises(InputError, match="Cannot match one checkpoint key to multiple keys") as error:
        Checkpointer(model).load(f"{tmp_path}/a.pth?matching_heuristics=True")
    assert "\n" not in str(error.value)


def test_weights_of_a_wrapped_model(tmp_path):
    torch.save({"model": {f"module.{key}": value for key, value in linear(6).state_dict().items()}}, tmp_path / "a.pth")
    model = linear()
    checkpointer = Checkpointer(model)
    checkpointer.load(str(tmp_path / "a.pth"), strict="all")
    assert model.weight[0, 0] == 6


def test_weights_of_pycls(tmp_path):
    state = {**Nest(2).backbone.state_dict(), "res2.num_batches_tracked": torch.tensor(1)}
    torch.save({"model_state": state}, tmp_path / "a.pyth")
    model = Nest()
    Checkpointer(model).load(str(tmp_path / "a.pyth"), strict="all")
    assert all((parameter == 2).all() for parameter in model.parameters())
