"""Writers for Weights & Biases and MLflow, in addition to Detectron2's writers."""

from __future__ import annotations

import logging
import os
import re
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils.events import EventWriter, get_event_storage
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.common.text import did_you_mean, one_line, or_list
from maskrcnn_ext.compat import stored_images
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_WINDOW = 20  # number of iterations whose median is a smoothed scalar, as in Detectron2's writers


def start_writers(
    names: Sequence[str], output_dir: str, cfg: DictConfig, *, resume: bool = False
) -> list[TrackingWriter]:
    """Starts a run with each of the named trackers. Call this on the main process only.

    Args:
        names: ``train.writers``: "wandb", "mlflow".
        output_dir: folder for offline data and the id of the run.
        cfg: its plain values become the run's configuration.
        resume: whether to continue the tracker's run of this folder, if there is one.

    Returns:
        Writers; register them before Detectron2's TensorBoard writer, which clears the images.

    Raises:
        InputError: a name is unknown, a library is missing, or a tracker cannot be reached.

    Example::

        train.writers=[wandb,mlflow]
    """
    for name in names:
        if name not in WRITERS:
            advice = did_you_mean(name, WRITERS, count=1) or "TensorBoard, JSON and text are always written"
            raise InputError(f"train.writers: unknown {name!r}, expected {or_list(list(WRITERS))}; {advice}")
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    return [WRITERS[name](Path(output_dir), flatten_config(cfg), resume=resume) for name in dict.fromkeys(names)]


class TrackingWriter(EventWriter, ABC):
    """Sends every scalar once, smoothed as in Detectron2's writers, and images.

    If a tracker fails during the run, a warning is logged and the run continues: scalars are sent next time, images are dropped.
    """

    def __init__(self, output_dir: Path, config: dict[str, Any], *, resume: bool) -> None:
        """Starts or continues the tracker's run; see :func:`start_writers`."""
        file = output_dir / f"{type(self).__name__}.txt"
        known = file.read_text(encoding="utf-8").strip() if resume and file.is_file() else None
        write_atomic(file, self._start(output_dir, config, known))
        self._last_scalar = self._last_image = -1
        self._unsent: list[tuple[int, dict[str, float]]] = []

    @abstractmethod
    def _start(self, output_dir: Path, config: dict[str, Any], run_id: str | None) -> str:
        """Starts a run, or continues the run of an id; returns the id."""

    @abstractmethod
    def _put_scalars(self, iteration: int, scalars: dict[str, float]) -> None: ...

    @abstractmethod
    def _put_image(self, iteration: int, name: str, image: np.ndarray) -> None:
        """Sends an image of shape (H, W, 3), uint8, RGB."""

    @abstractmethod
    def _finish(self) -> None: ...

    def write(self) -> None:
        """Sends the new scalars and images of the storage."""
        storage = get_event_storage()
        scalars: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in storage.latest_with_smoothing_hint(_WINDOW).items():
            if iteration > self._last_scalar:
                scalars[iteration][name] = value
        self._unsent += sorted(scalars.items())
        self._last_scalar = max(scalars, default=self._last_scalar)
        while self._unsent and self._try_to_send("scalars", self._put_scalars, *self._unsent[0]):
            self._unsent.pop(0)
        images = [image for image in stored_images(storage) if image[2] > self._last_image]
        for name, pixels, iteration in images:
            self._try_to_send("an image", self._put_image, iteration, name, _to_uint8(pixels))
        self._last_image = max((iteration for *_, iteration in images), default=self._last_image)

    def close(self) -> None:
        """Ends the run."""
        if self._unsent:
            logger.warning("%s: the scalars of %d iterations were not sent", type(self).__name__, len(self._unsent))
        self._try_to_send("the end of the run", self._finish)

    def _try_to_send(self, what: str, send: Callable[..., None], *arguments: Any) -> bool:
        try:
            send(*arguments)
        except Exception as error:  # trackers' errors have no base class
            logger.warning("%s: could not send %s: %s", type(self).__name__, what, one_line(error)[:200])
            return False
        return True


class WandbWriter(TrackingWriter):
    """Writes to Weights & Biases, which reads project, name and mode from variables such as WANDB_PROJECT and WANDB_MODE=offline."""

    def _start(self, output_dir: Path, config: dict[str, Any], run_id: str | None) -> str:
        wandb = self._wandb = require("wandb", extra="wandb", purpose="train.writers=[wandb]")
        try:
            self._run = wandb.init(
                dir=str(output_dir),
                name=os.environ.get("WANDB_NAME", output_dir.resolve().name),
                config=config,
                id=run_id,
                resume="allow" if run_id else None,
                settings=wandb.Settings(console="off"),  # log.txt has the output, and a progress bar is not text
            )
        except Exception as error:
            raise InputError(
                f"train.writers: wandb cannot start a run ({one_line(error)[:200]}): `wandb login`, or set WANDB_MODE=offline"
            ) from error
        # Not wandb's own step, which must increase: a resumed run may start before the last one that was sent.
        self._run.define_metric("*", step_metric="iteration")
        return str(self._run.id)

    def _put_scalars(self, iteration: int, scalars: dict[str, float]) -> None:
        self._run.log({"iteration": iteration, **scalars})

    def _put_image(self, iteration: int, name: str, image: np.ndarray) -> None:
        self._run.log({"iteration": iteration, name: self._wandb.Image(image)})

    def _finish(self) -> None:
        self._run.finish()


class MlflowWriter(TrackingWriter):
    """Writes to MLflow: to the server of MLFLOW_TRACKING_URI, by default to ``mlflow.db`` in the output folder.

    MLFLOW_EXPERIMENT_NAME is the name of the experiment.
    """

    def _start(self, output_dir: Path, config: dict[str, Any], run_id: str | None) -> str:
        entities = self._entities = _require_mlflow("mlflow.entities")
        folder = output_dir.resolve()
        server = os.environ.get("MLFLOW_TRACKING_URI")
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "maskrcnn_ext")
        try:
            client = self._client = _require_mlflow("mlflow").MlflowClient(
                server or f"sqlite:///{folder / 'mlflow.db'}"
            )
            if run_id:
                client.update_run(run_id, status="RUNNING")
                self._run_id = run_id
                return run_id
            known = client.get_experiment_by_name(experiment)
            artifacts = None if server else (folder / "mlflow_artifacts").as_uri()
            of = known.experiment_id if known else client.create_experiment(experiment, artifact_location=artifacts)
            self._run_id = str(client.create_run(of, run_name=folder.name).info.run_id)
            # A server accepts at most 100 parameters at once, and values of at most 6000 characters.
            parameters = [entities.Param(_mlflow_name(name), str(value)[:6000]) for name, value in config.items()]
            for start in range(0, len(parameters), 100):
                client.log_batch(self._run_id, params=parameters[start : start + 100])
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"train.writers: mlflow cannot start a run ({one_line(error)[:200]}): check MLFLOW_TRACKING_URI={server or ''}"
            ) from error
        return self._run_id

    def _put_scalars(self, iteration: int, scalars: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(_mlflow_name(name), value, now, iteration) for name, value in scalars.items()]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + 1000])

    def _put_image(self, iteration: int, name: str, image: np.ndarray) -> None:
        self._client.log_image(self._run_id, image, key=name, step=iteration)

    def _finish(self) -> None:
        self._client.set_terminated(self._run_id)


WRITERS: dict[str, type[TrackingWriter]] = {"wandb": WandbWriter, "mlflow": MlflowWriter}


def _require_mlflow(module: str) -> Any:
    return require(module, extra="mlflow", purpose="train.writers=[mlflow]")


def _mlflow_name(name: str) -> str:
    """Returns a name with the characters that MLflow accepts; class names may contain any."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def _to_uint8(image: np.ndarray | torch.Tensor) -> np.ndarray:
    """Converts an image of Detectron2's storage, (3, H, W), uint8 or float from 0 to 1, to (H, W, 3), uint8."""
    pixels = np.asarray(image.cpu() if isinstance(image, torch.Tensor) else image).transpose(1, 2, 0)
    return pixels if pixels.dtype == np.uint8 else (pixels * 255).round().clip(0, 255).astype(np.uint8)


def flatten_config(cfg: DictConfig) -> dict[str, Any]:
    """Returns the plain values of a config by dotted key. Classes and functions are given by name; other objects are left out.

    Example:
        >>> flatten_config(OmegaConf.create({"train": {"steps": [1, 2], "seed": 3}}))
        {'train.steps': '[1, 2]', 'train.seed': 3}
    """
    try:
        container = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:  # a reference to a key without a value
        container = OmegaConf.to_container(cfg, resolve=False)
    return dict(_flatten(container, ""))


def _flatten(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        if all(isinstance(inner, _PLAIN) for inner in value):
            yield key, str(list(value))
        else:
            for index, inner in enumerate(value):
                yield from _flatten(inner, f"{key}.{index}")
    elif isinstance(value, _PLAIN):
        yield key, value
    elif callable(value) and hasattr(value, "__qualname__"):
        yield key, f"{value.__module__}.{value.__qualname__}"


_PLAIN = (str, bool, int, float, type(None))
