"""The checkpointer writes Detectron2's files, falls back from damaged ones, and loads weights from every source of Detectron2."""

import itertools
import logging
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
from tests.helpers.checkpoints import flip, linear, resumed, saved_run, truncate
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
    """Returns Detectron2's trainer with momentum and a schedule for a tiny model."""
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
def test_a_run_resumes_as_with_detectron2(tmp_path, writer, reader):
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


def test_files_have_detectron2s_content(tmp_path):
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


def test_without_checkpoints_the_initial_weights_are_loaded(tmp_path):
    Checkpointer(linear(7), str(tmp_path)).save("start")
    folder = tmp_path / "run"
    folder.mkdir()
    assert not Checkpointer(linear(), str(folder)).has_checkpoint()
    assert resumed(folder, str(tmp_path / "start.pth")) == 7
    assert resumed(folder) == -1, "no weights were asked for"


def test_without_resume_no_checkpoint_is_loaded(tmp_path):
    saved_run(tmp_path, 1)
    model = linear(-1)
    Checkpointer(model, str(tmp_path)).resume_or_load("", resume=False)
    assert model.weight[0, 0] == -1


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    saved_run(tmp_path, 1)
    (tmp_path / ".model_0000003.pth.tmp").write_bytes(b"half")
    other = Checkpointer(linear(), str(tmp_path), save_to_disk=False)
    other.resume_or_load("", resume=True)
    assert (tmp_path / ".model_0000003.pth.tmp").exists(), "another process may be writing"
    resumed(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]


def test_only_one_process_writes(tmp_path):
    Checkpointer(linear(), str(tmp_path), save_to_disk=False).save("model_0000001", iteration=1)
    Checkpointer(linear()).save("model_0000001", iteration=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}/nowhere.pth", r"nowhere\.pth: no such file: fix train\.init_checkpoint"),
        ("{}", "no such file"),
        ("detectron2://nowhere.pkl", r"detectron2://nowhere\.pkl: cannot be downloaded \("),
        ("catalog://ImageNetPretrained/nowhere", r"catalog://.*cannot be downloaded \(KeyError"),
        ("catalog://nowhere", "not present in the catalog"),
    ],
)
def test_missing_weights(tmp_path, path, message):
    with pytest.raises(InputError, match=message) as error:
        Checkpointer(linear()).load(path.format(tmp_path))
    assert "\n" not in str(error.value)


def test_an_output_folder_elsewhere_is_an_error():
    with pytest.raises(
        InputError, match=r"train\.output_dir=s3://bucket/run: checkpoints are written to a local folder"
    ):
        Checkpointer(linear(), "s3://bucket/run")


class Attic(PathHandler):
    """Resolves attic://<name> to the files of a folder."""

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
        ([1, 2], "contains one list instead of weights by name"),
        ({}, "contains no weights by name"),
        ({"model": None}, "contains no weights by name"),
        ({"state_dict": {"a": torch.ones(1)}, "meta": 1}, "'state_dict' is a dict and not a tensor"),
        ({"model": {"a": [1, 2]}}, "'a' is a list and not a tensor"),
        ({"model": {3: torch.ones(1)}}, "3 is not a name"),
        ({"model": {"a": np.array(["x"])}}, "'a' is a ndarray and not a tensor"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "pkl", "pyth"])
def test_files_of_another_content(tmp_path, content, message, suffix):
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


def test_the_path_can_ask_to_match_names_by_their_ends(tmp_path):
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


def prefixed(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model."])
def test_weights_of_a_wrapped_model(tmp_path, prefix):
    torch.save({"model": prefixed(prefix, linear(6).state_dict())}, tmp_path / "a.pth")
    model = linear()
    checkpointer = Checkpointer(model)
    checkpointer.load(str(tmp_path / "a.pth"), strict="all")
    assert model.weight[0, 0] == 6


@pytest.mark.parametrize("prefix", ["model.", "model._orig_mod.", "model.module.", ""])
def test_a_checkpoint_of_lightning(tmp_path, prefix):
    torch.save({"epoch": 3, "state_dict": prefixed(prefix, linear(6).state_dict()), "loops": {}}, tmp_path / "a.ckpt")
    model = linear()
    Checkpointer(model).load(str(tmp_path / "a.ckpt"), strict="all")
    assert model.weight[0, 0] == 6


def test_a_part_that_was_compiled(tmp_path):
    model = nn.ModuleDict({"head": linear(6), "other": linear(3)})
    state = {name.replace("head.", "head._orig_mod."): value for name, value in model.state_dict().items()}
    torch.save({"model": state}, tmp_path / "a.pth")
    copy = nn.ModuleDict({"head": linear(), "other": linear()})
    Checkpointer(copy).load(str(tmp_path / "a.pth"), strict="all")
    assert (copy["head"].weight[0, 0], copy["other"].weight[0, 0]) == (6, 3)


def test_prefixes_stay_where_the_names_would_not_fit_without_them(tmp_path):
    model = nn.ModuleDict({"model": linear()})  # its own names begin with a wrapper's
    torch.save({"model": nn.ModuleDict({"model": linear(6)}).state_dict()}, tmp_path / "a.pth")
    Checkpointer(model).load(str(tmp_path / "a.pth"), strict="all")
    assert model["model"].weight[0, 0] == 6
    torch.save({"state_dict": {"model.another.weight": torch.zeros(1)}, "meta": {}}, tmp_path / "b.pth")
    with pytest.raises(InputError, match="'state_dict' is a dict and not a tensor"):
        Checkpointer(model).load(str(tmp_path / "b.pth"))


def test_weights_of_pycls(tmp_path):
    state = {**Nest(2).backbone.state_dict(), "res2.num_batches_tracked": torch.tensor(1)}
    torch.save({"model_state": state}, tmp_path / "a.pyth")
    model = Nest()
    Checkpointer(model).load(str(tmp_path / "a.pyth"), strict="all")
    assert all((parameter == 2).all() for parameter in model.parameters())
