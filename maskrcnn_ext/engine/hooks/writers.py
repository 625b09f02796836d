"""Weights & Biases and MLflow beside the writers that Detectron2 brings."""

from __future__ import annotations

import difflib
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

from maskrcnn_ext.compat import stored_images
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

_WINDOW = 20  # iterations that a smoothed scalar is the median of, as in Detectron2's writers


def extra_writers(
    names: Sequence[str], output_dir: str, cfg: DictConfig, *, resume: bool = False
) -> list[TrackingWriter]:
    """Starts a run with each of the named trackers; for the main process.

    Args:
        names: ``train.writers``: "wandb", "mlflow".
        output_dir: where offline data goes, and the id of the run.
        cfg: its plain values become the run's configuration.
        resume: go on with the tracker's run of this folder, if there is one.

    Returns:
        Writers, which must stand before Detectron2's TensorBoard writer: it clears the images.

    Raises:
        InputError: an unknown name, a library that is missing, or a tracker that cannot be reached.
    """
    for name in names:
        if name not in WRITERS:
            near = difflib.get_close_matches(name, WRITERS, n=1)
            advice = f"did you mean {near[0]}?" if near else "TensorBoard, JSON and text are always there"
            raise InputError(f"train.writers: unknown {name!r}, expected {' or '.join(WRITERS)}; {advice}")
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    return [WRITERS[name](Path(output_dir), flat_config(cfg), resume=resume) for name in dict.fromkeys(names)]


class TrackingWriter(EventWriter, ABC):
    """Sends every scalar once, smoothed as Detectron2's writers do, and images.

    A tracker that fails during the run is warned of and does not end it: scalars are sent the next time, images are left out.
    """

    def __init__(self, output_dir: Path, config: dict[str, Any], *, resume: bool) -> None:
        """Starts the run, or goes on with it; see :func:`extra_writers`."""
        file = output_dir / f"{type(self).__name__}.txt"
        known = file.read_text(encoding="utf-8").strip() if resume and file.is_file() else None
        file.write_text(self._start(output_dir, config, known), encoding="utf-8")
        self._last_scalar = self._last_image = -1
        self._unsent: list[tuple[int, dict[str, float]]] = []

    @abstractmethod
    def _start(self, output_dir: Path, config: dict[str, Any], run_id: str | None) -> str:
        """Starts a run, or goes on with the one of an id; returns its id."""

    @abstractmethod
    def _put_scalars(self, iteration: int, scalars: dict[str, float]) -> None: ...

    @abstractmethod
    def _put_image(self, iteration: int, name: str, image: np.ndarray) -> None:
        """Takes (H, W, 3), uint8, RGB."""

    @abstractmethod
    def _finish(self) -> None: ...

    def write(self) -> None:
        """Sends what is new in the storage."""
        storage = get_event_storage()
        scalars: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in storage.latest_with_smoothing_hint(_WINDOW).items():
            if iteration > self._last_scalar:
                scalars[iteration][name] = value
        self._unsent += sorted(scalars.items())
        self._last_scalar = max(scalars, default=self._last_scalar)
        while self._unsent and self._attempt("scalars", self._put_scalars, *self._unsent[0]):
            self._unsent.pop(0)
        images = [image for image in stored_images(storage) if image[2] > self._last_image]
        for name, pixels, iteration in images:
            self._attempt("an image", self._put_image, iteration, name, _to_bytes(pixels))
        self._last_image = max((iteration for *_, iteration in images), default=self._last_image)

    def close(self) -> None:
        """Ends the run."""
        if self._unsent:
            logger.warning("%s: the scalars of %d iterations were not sent", type(self).__name__, len(self._unsent))
        self._attempt("the end of the run", self._finish)

    def _attempt(self, what: str, send: Callable[..., None], *arguments: Any) -> bool:
        try:
            send(*arguments)
        except Exception as error:  # trackers' errors have no base class
            logger.warning("%s: could not send %s: %s", type(self).__name__, what, _line(error))
            return False
        return True


class WandbWriter(TrackingWriter):
    """Weights & Biases; project, name, mode and more by its own variables, such as WANDB_PROJECT and WANDB_MODE=offline."""

    def _start(self, output_dir: Path, config: dict[str, Any], run_id: str | None) -> str:
        wandb = self._wandb = _import("wandb")
        try:
            self._run = wandb.init(
                dir=str(output_dir),
                name=os.environ.get("WANDB_NAME", output_dir.resolve().name),
                config=config,
                id=run_id,
                resume="allow" if run_id else None,
                settings=wandb.Settings(console="off"),  # the log file is in the folder, and a bar is no text
            )
        except Exception as error:
            raise InputError(
                f"train.writers: wandb cannot start a run ({_line(error)}): `wandb login`, or set WANDB_MODE=offline"
            ) from error
        # Not wandb's own step, which never goes back: a resumed run may be behind the last one that was sent.
        self._run.define_metric("*", step_metric="iteration")
        return str(self._run.id)

    def _put_scalars(self, iteration: int, scalars: dict[str, float]) -> None:
        self._run.log({"iteration": iteration, **scalars})

    def _put_image(self, iteration: int, name: str, image: np.ndarray) -> None:
        self._run.log({"iteration": iteration, name: self._wandb.Image(image)})

    def _finish(self) -> None:
        self._run.finish()


class MlflowWriter(TrackingWriter):
    """MLflow, on the server of MLFLOW_TRACKING_URI or else in ``mlflow.db`` of the output folder; see MLFLOW_EXPERIMENT_NAME."""

    def _start(self, output_dir: Path, config: dict[str, Any], run_id: str | None) -> str:
        entities = self._entities = _import("mlflow.entities")
        folder = output_dir.resolve()
        server = os.environ.get("MLFLOW_TRACKING_URI")
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "maskrcnn_ext")
        try:
            client = self._client = _import("mlflow").MlflowClient(server or f"sqlite:///{folder / 'mlflow.db'}")
            if run_id:
                client.update_run(run_id, status="RUNNING")
                self._run_id = run_id
                return run_id
            known = client.get_experiment_by_name(experiment)
            artifacts = None if server else (folder / "mlflow_artifacts").as_uri()
            of = known.experiment_id if known else client.create_experiment(experiment, artifact_location=artifacts)
            self._run_id = str(client.create_run(of, run_name=folder.name).info.run_id)
            # 100 parameters are the most that a server takes at once, 6000 characters the longest value.
            parameters = [entities.Param(_key(name), str(value)[:6000]) for name, value in config.items()]
            for start in range(0, len(parameters), 100):
                client.log_batch(self._run_id, params=parameters[start : start + 100])
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"train.writers: mlflow cannot start a run ({_line(error)}): check MLFLOW_TRACKING_URI={server or ''}"
            ) from error
        return self._run_id

    def _put_scalars(self, iteration: int, scalars: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(_key(name), value, now, iteration) for name, value in scalars.items()]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + 1000])

    def _put_image(self, iteration: int, name: str, image: np.ndarray) -> None:
        self._client.log_image(self._run_id, image, key=name, step=iteration)

    def _finish(self) -> None:
        self._client.set_terminated(self._run_id)


WRITERS: dict[str, type[TrackingWriter]] = {"wandb": WandbWriter, "mlflow": MlflowWriter}


def _import(name: str) -> Any:
    import importlib

    library = name.split(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f'train.writers has {library}, which is not installed: python -m pip install "maskrcnn_ext[{library}]"'
        ) from error


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _key(name: str) -> str:
    """MLflow takes few characters, and class names have any."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def _to_bytes(image: np.ndarray | torch.Tensor) -> np.ndarray:
    """From what Detectron2's storage takes, (3, H, W), uint8 or float from 0 to 1, to (H, W, 3), uint8."""
    pixels = np.asarray(image.cpu() if isinstance(image, torch.Tensor) else image).transpose(1, 2, 0)
    return pixels if pixels.dtype == np.uint8 else (pixels * 255).round().clip(0, 255).astype(np.uint8)


def flat_config(cfg: DictConfig) -> dict[str, Any]:
    """Returns the plain values of a config by their dotted keys; classes and functions as their names, other objects not at all."""
    try:
        container = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:  # a key may refer to what nobody has set
        container = OmegaConf.to_container(cfg, resolve=False)
    return dict(_flat(container, ""))


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        if all(isinstance(inner, _PLAIN) for inner in value):
            yield key, str(list(value))
        else:
            for index, inner in enumerate(value):
                yield from _flat(inner, f"{key}.{index}")
    elif isinstance(value, _PLAIN):
        yield key, value
    elif callable(value) and hasattr(value, "__qualname__"):
        yield key, f"{value.__module__}.{value.__qualname__}"


_PLAIN = (str, bool, int, float, type(None))
