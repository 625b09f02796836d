"""Weights & Biases and MLflow receive every scalar once, the images and the config; the real libraries run offline."""

import math
import struct
import sys

import numpy as np
import pytest
import torch
from detectron2.engine import hooks
from detectron2.utils.events import EventStorage, TensorboardXWriter
from omegaconf import OmegaConf

from maskrcnn_ext import get_config
from maskrcnn_ext.engine.hooks.writers import TrackingWriter, flatten_config, start_writers
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import Results, random_states, same_states, toy_trainer

CONFIG = OmegaConf.create({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "train": {"output_dir": "here"}})


class Kept(TrackingWriter):
    """A tracker that stores the calls it receives, and can be made to fail."""

    def _start(self, _, config, run_id):
        self.config, self.resumed = config, run_id
        self.scalars, self.images, self.broken, self.finished = [], [], False, False
        return run_id or "the-id"

    def _put_scalars(self, iteration, scalars):
        if self.broken:
            raise ConnectionError("no route to the tracker")
        self.scalars.append((iteration, scalars))

    def _put_image(self, iteration, name, image):
        self.images.append((iteration, name, image))

    def _finish(self):
        self.finished = True


def test_every_scalar_is_sent_once_also_of_the_last_evaluation(tmp_path):
    writer = Kept(tmp_path, {}, resume=False)
    trainer = toy_trainer([Results(3, [{"segm/AP": 1.0}, {"segm/AP": 2.0}, {"segm/AP": 3.0}])])
    trainer.register_hooks([hooks.PeriodicWriter([writer], period=2)])
    trainer.train(0, 7)
    values = [(i, value) for i, scalars in writer.scalars for name, value in scalars.items() if name == "segm/AP"]
    assert values == [(2, 1.0), (5, 2.0), (7, 3.0)]
    assert [i for i, scalars in writer.scalars if "total_loss" in scalars] == [1, 3, 5, 6]
    assert writer.finished


def test_images_are_sent_before_tensorboard_clears_them(tmp_path):
    writer = Kept(tmp_path, {}, resume=False)
    whole = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    with EventStorage(3) as storage:
        storage.put_image("panel/0", whole)
        storage.put_image("panel/1", torch.from_numpy(whole) / 255.0)
        for each in (writer, writer, TensorboardXWriter(str(tmp_path)), writer):
            each.write()
    assert [(iteration, name) for iteration, name, _ in writer.images] == [(3, "panel/0"), (3, "panel/1")]
    for *_, image in writer.images:
        assert np.array_equal(image, whole.transpose(1, 2, 0))


def test_a_failing_tracker_does_not_end_training_and_receives_scalars_later(tmp_path, caplog):
    writer = Kept(tmp_path, {}, resume=False)
    breaks = hooks.CallbackHook(after_step=lambda trainer: setattr(writer, "broken", trainer.iter in (1, 2)))
    trainer = toy_trainer([breaks, hooks.PeriodicWriter([writer], period=1)])
    trainer.train(0, 5)
    assert [iteration for iteration, _ in writer.scalars] == [0, 1, 2, 3, 4]
    assert "Kept: could not send scalars: no route to the tracker" in caplog.text


def test_a_resumed_training_continues_its_run(tmp_path):
    assert Kept(tmp_path, {}, resume=True).resumed is None
    assert Kept(tmp_path, {}, resume=True).resumed == "the-id"
    assert Kept(tmp_path, {}, resume=False).resumed is None


def test_the_config_is_flat_and_plain():
    cfg = get_config("domains/shapes.py")
    cfg.optimizer.params.model = torch.nn.Linear(1, 1)  # as training puts it there
    flat = flatten_config(cfg)
    assert flat["optimizer.lr"] == 2e-3
    assert flat["dataloader.test.mapper.image_format"] == "BGR", "references are followed"
    assert flat["model._target_"] == "detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN"
    assert flat["model.proposal_generator.anchor_generator.sizes.0"] == "[12]"
    assert "optimizer.params.model" not in flat
    assert all(isinstance(value, str | int | float | None) for value in flat.values())
    assert flatten_config(OmegaConf.create({"a": "${gone}", "b": 1})) == {"a": "${gone}", "b": 1}


@pytest.mark.parametrize(
    ("names", "missing", "message"),
    [
        (["wandbb"], None, "unknown 'wandbb', expected wandb or mlflow; did you mean wandb?"),
        (["tensorboard"], None, "TensorBoard, JSON and text are always written"),
        (["wandb"], "wandb", 'train.writers=\\[wandb\\] needs wandb: pip install "maskrcnn_ext\\[wandb\\]"'),
        (
            ["mlflow"],
            "mlflow.entities",
            'train.writers=\\[mlflow\\] needs mlflow.entities: pip install "maskrcnn_ext\\[mlflow\\]"',
        ),
    ],
)
def test_mistakes(names, missing, message, tmp_path, monkeypatch):
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=message):
        start_writers(names, str(tmp_path), CONFIG)


def send(writer, start=0):
    image = np.zeros((3, 8, 8), np.uint8)
    for iteration in (start, start + 1):
        with EventStorage(iteration) as storage:
            storage.put_scalar("total_loss", 4.0 - iteration)
            storage.put_scalar("bbox/AP-café (x)", math.nan if iteration == 0 else 2.5, smoothing_hint=False)
            storage.put_image("panel/0", image)
            writer.write()
    writer.close()


def log_records(data):
    """Yields the records of a file in LevelDB's log format, which wandb writes: blocks of 32 KiB, record parts with 7-byte headers."""
    position, record = 7, b""  # after wandb's own header
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            yield record
            record = b""


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    before = random_states()
    (writer,) = start_writers(["wandb", "wandb"], str(tmp_path), CONFIG)
    send(writer)
    assert same_states(before, random_states())

    (file,) = tmp_path.rglob("run-*.wandb")
    records = [wandb_internal_pb2.Record.FromString(data) for data in log_records(file.read_bytes())]
    history = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    losses = [(found["iteration"], float(found["total_loss"])) for found in history if "total_loss" in found]
    assert losses == [("0", 4.0), ("1", 3.0)]
    assert [found["bbox/AP-café (x)"] for found in history if "bbox/AP-café (x)" in found] == ["NaN", "2.5"]
    assert any(name.startswith("panel/0") for found in history for name in found), history
    config = {item.key: item.value_json for record in records for item in record.run.config.update}
    assert config["optimizer.lr"] == "0.1"
    run_id = next(record.run.run_id for record in records if record.HasField("run"))
    assert (tmp_path / "WandbWriter.txt").read_text() == run_id
    (again,) = start_writers(["wandb"], str(tmp_path), CONFIG, resume=True)
    again.close()
    assert (tmp_path / "WandbWriter.txt").read_text() == run_id


def test_mlflow_in_a_local_file(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    before = random_states()
    (writer,) = start_writers(["mlflow"], str(tmp_path), CONFIG)
    send(writer)
    (again,) = start_writers(["mlflow"], str(tmp_path), CONFIG, resume=True)
    send(again, start=2)
    assert same_states(before, random_states())

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "maskrcnn_ext"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == (tmp_path / "MlflowWriter.txt").read_text()
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == "0.1"
    losses = client.get_metric_history(run.info.run_id, "total_loss")
    assert [(point.step, point.value) for point in losses] == [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]
    assert [point.value for point in client.get_metric_history(run.info.run_id, "bbox/AP-caf_ _x_")][1:] == [2.5] * 3
    assert any(file.suffix == ".png" for file in (tmp_path / "mlflow_artifacts").rglob("*"))


def test_a_tracker_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        InputError, match=r"mlflow cannot start a run \(.*\): check MLFLOW_TRACKING_URI=http://127.0.0.1:9"
    ):
        start_writers(["mlflow"], str(tmp_path), CONFIG)
