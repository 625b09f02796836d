"""Runs the trials of a tuning: each is a training in a separate folder, and the study records them all."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.config.plan.choice import override_value
from maskrcnn_ext.engine.hooks.preemption import PREEMPTED
from maskrcnn_ext.engine.hooks.pruning import POINTS, STUDY, point_of
from maskrcnn_ext.engine.main import train
from maskrcnn_ext.engine.run_length import COUNTS, set_length
from maskrcnn_ext.engine.tuning.search_space import Dimension, Value, changed_settings
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.report.run import read_run

_STOPPED = (PREEMPTED, 130)  # exit statuses of a training that a signal stopped
_RANDOM_TRIALS = 6  # before the sampler follows the results


@dataclass(frozen=True)
class Trial:
    """One training of a tuning that has ended.

    Attributes:
        folder: ``train.output_dir`` of its run, named by its number, from 0.
        values: of each dimension, by name.
        value: the best value of the metric; None if the training failed.
        pruned: whether it was ended early.
        failure: why it failed; "" if it did not.
    """

    folder: Path
    values: Mapping[str, Value]
    value: float | None
    pruned: bool = False
    failure: str = ""


class StoppedTrialError(Exception):
    """A signal stopped the training of a trial."""

    def __init__(self, status: int) -> None:
        """Stores the exit status of the training."""
        super().__init__(status)
        self.status = status


class Tuning:
    """A study of one config. Trials that another process of the same study was running are continued first.

    Attributes:
        out: the folder of everything: ``study.db`` and the runs in ``trials/``.
        dimensions: the settings that vary.
        metric: the metric to maximise.

    Example:
        ::

            tuning = Tuning(Path("output/tune"), "my_config.py", find_dimensions(cfg), metric="segm/AP")
            for trial in tuning.run(20):
                print(trial.folder.name, trial.value)
    """

    def __init__(
        self,
        out: Path,
        config: str,
        dimensions: Sequence[Dimension],
        *,
        metric: str,
        fixed: Sequence[str] = (),
        num_gpus: int = 1,
        seed: int = 0,
    ) -> None:
        """Opens the study, or makes it.

        Args:
            out: see :class:`Tuning`.
            config: the LazyConfig to tune.
            dimensions: of :func:`.search_space.find_dimensions`.
            metric: the scalar to maximise, such as "segm/AP".
            fixed: overrides of all trials.
            num_gpus: GPUs to train on.
            seed: of the sampler.

        Raises:
            InputError: optuna is missing, or the folder has a study of another config or other overrides.
        """
        self._optuna = require("optuna", extra="tune", purpose="tuning")
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        self.out, self.dimensions, self.metric = out.resolve(), list(dimensions), metric
        self._config, self._fixed, self._num_gpus = config, list(fixed), num_gpus
        self.out.mkdir(parents=True, exist_ok=True)
        self._storage = f"sqlite:///{self.out / 'study.db'}"
        identity = {"config": config, "overrides": self._fixed, "metric": metric, "dimensions": self._ranges()}
        self._study = self._open(identity)
        # The number of trials, or a resumed study would draw the first values again.
        sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=_RANDOM_TRIALS, seed=seed + len(self._study.get_trials(deepcopy=False))
        )
        self._study.sampler = sampler

    def _ranges(self) -> list[list[Any]]:
        return [[one.name, one.unchanged, one.low, one.high, *one.choices] for one in self.dimensions]

    def _open(self, identity: dict[str, Any]) -> Any:
        text = json.dumps(identity)
        study = self._optuna.create_study(
            study_name=STUDY, storage=self._storage, direction="maximize", load_if_exists=True
        )
        known = study.user_attrs.get("identity")
        if known is None:
            study.set_user_attr("identity", text)
            study.enqueue_trial({one.name: one.unchanged for one in self.dimensions})
        elif known != text:
            differing = [key for key, value in json.loads(known).items() if value != identity[key]]
            raise InputError(
                f"{self.out} has trials of another tuning (other {', '.join(differing)}): choose another folder with -o, or delete it"
            )
        return study

    def trials(self) -> list[Trial]:
        """Returns the trials that have ended, in their order."""
        states = self._optuna.trial.TrialState
        return [
            self._trial(frozen)
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.state in (states.COMPLETE, states.PRUNED) or "failure" in frozen.user_attrs
        ]

    def best(self) -> Trial | None:
        """Returns the trial with the highest value among those that ran to their end; None before the first."""
        whole = [trial for trial in self.trials() if trial.value is not None and not trial.pruned]
        return max(whole, key=lambda trial: trial.value or 0.0, default=None)

    def importances(self) -> dict[str, float]:
        """Returns the importance of each dimension for the better trials, a share of 1 (PED-ANOVA, arXiv:2304.10255); {} for few trials."""
        optuna = self._optuna
        whole = [trial for trial in self.trials() if trial.value is not None and not trial.pruned]
        if len(whole) < _RANDOM_TRIALS or len({trial.value for trial in whole}) < 2:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}

    def settings(self, trial: Trial) -> dict[str, Any]:
        """Returns the keys that a trial sets in the config."""
        return changed_settings(self.dimensions, dict(trial.values))

    def run(self, count: int) -> Iterator[Trial]:
        """Runs trials until `count` have ended, those of earlier calls included; yields each new one.

        Raises:
            InputError: the config fails without any change.
            StoppedTrialError: a signal stopped the training.
        """
        self._continue_stopped()
        while len(self.trials()) < count:
            asked = self._study.ask()
            values = {one.name: self._suggest(asked, one) for one in self.dimensions}
            folder = self.out / "trials" / asked.user_attrs.get("folder", str(asked.number))
            asked.set_user_attr("folder", folder.name)
            is_first = not self.trials()
            failure = self._train(folder, changed_settings(self.dimensions, values))
            if failure and is_first:
                self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
                self._study.enqueue_trial(values)  # when the mistake is corrected
                raise InputError(f"the config fails without any change: {failure}")
            self._tell(asked, folder, failure)
            self._remove_weights()
            yield self.trials()[-1]

    def _suggest(self, asked: Any, dimension: Dimension) -> Value:
        if dimension.choices:
            return str(asked.suggest_categorical(dimension.name, dimension.choices))
        return float(asked.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.log))

    def _continue_stopped(self) -> None:
        """Queues the trials that were running when their process ended: they continue in their folders."""
        states = self._optuna.trial.TrialState
        for frozen in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            self._study.tell(frozen.number, state=states.FAIL)
            if len(frozen.params) == len(self.dimensions):
                self._study.enqueue_trial(
                    frozen.params, user_attrs={"folder": frozen.user_attrs.get("folder", str(frozen.number))}
                )

    def _train(self, folder: Path, settings: dict[str, Any]) -> str:
        """Trains; returns why it failed, "" if it did not."""
        hook = {
            "_target_": "maskrcnn_ext.engine.hooks.pruning.Pruning",
            "period": "${train.eval_period}",
            "storage": self._storage,
            "metric": self.metric,
        }
        keys = {
            "train.output_dir": str(folder),
            "train.progress": "page",
            "train.best.metric": self.metric,
            "train.early_stopping.metric": None,
            "train.hooks": [hook],
            **settings,
        }
        overrides = [f"{key}={override_value(value)}" for key, value in keys.items()]
        command = ["--config-file", self._config, "--num-gpus", str(self._num_gpus), "--resume", *self._fixed]
        errors = io.StringIO()
        # The training also writes its output into log.txt.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            try:
                status = train([*command, *overrides])
            except Exception as error:  # such as out of memory: the tuning continues: other trials may fit
                return one_line(error)
        if status in _STOPPED:
            raise StoppedTrialError(status)
        return failure_reason(status, errors.getvalue(), folder / "log.txt") if status else ""

    def _tell(self, asked: Any, folder: Path, failure: str) -> None:
        """Stores the result of a training."""
        states = self._optuna.trial.TrialState
        if failure:
            asked.set_user_attr("failure", failure)
            self._study.tell(asked, state=states.FAIL)
            return
        run = read_run(folder)
        max_iter = int(run.settings()["train.max_iter"])
        best = 0.0  # an evaluation without a detection may lack the metric, or have NaN
        for line in run.scalars:
            value = line.get(self.metric, math.nan)
            if math.isfinite(value):
                asked.report(value, point_of(line["iteration"], max_iter))
                best = max(best, value)
        if point_of(run.scalars[-1]["iteration"], max_iter) < POINTS:
            self._study.tell(asked, state=states.PRUNED)
        else:
            self._study.tell(asked, best)

    def _trial(self, frozen: Any) -> Trial:
        states = self._optuna.trial.TrialState
        folder = self.out / "trials" / frozen.user_attrs["folder"]
        failure = frozen.user_attrs.get("failure", "")
        seen = frozen.intermediate_values.values()
        value = max(seen, default=0.0) if frozen.state == states.PRUNED else frozen.value
        return Trial(folder, dict(frozen.params), value, pruned=frozen.state == states.PRUNED, failure=failure)

    def _remove_weights(self) -> None:
        """Removes the checkpoints of all trials but the best: they are large, and their overrides are known."""
        best = self.best()
        for trial in self.trials():
            if best is None or trial.folder != best.folder:
                for file in trial.folder.glob("*.pth"):
                    file.unlink()


def failure_reason(status: int, errors: str, log: Path) -> str:
    """Returns why a training failed.

    Args:
        status: its exit status.
        errors: its output to stderr. The messages of further processes, one for each GPU, are not among it.
        log: its log file.

    Example:
        >>> failure_reason(2, "error: optimizer.lr=-1: expected a positive number", Path("run/log.txt"))
        'optimizer.lr=-1: expected a positive number'
        >>> failure_reason(1, "", Path("run/log.txt"))
        'exit status 1, see run/log.txt'
    """
    lines = errors.strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"exit status {status}, see {log}"


def trial_length(cfg: DictConfig, fixed: Sequence[str]) -> list[str]:
    """Returns the overrides that give each trial its length and four evaluations or more.

    A quarter of the config's iterations, unless an override in `fixed` sets ``train.max_iter``, ``train.epochs`` or ``train.time``.
    """
    cfg = cfg.copy()
    if not any(text.partition("=")[0] in ("train.max_iter", "train.epochs", "train.time") for text in fixed):
        set_length(cfg, max(4, cfg.train.max_iter // 4))
    settings = cfg.train
    settings.eval_period = min(settings.eval_period or settings.max_iter, -(-settings.max_iter // 4))
    settings.checkpointer.period = settings.eval_period
    counts = {key: OmegaConf.select(cfg, key) for key in ("train.max_iter", *COUNTS)}
    return [
        *(f"{key}={value}" for key, value in counts.items() if value),
        "train.checkpointer.max_to_keep=1",
        "train.image_panel.count=0",
        "train.best.evaluate=false",
    ]
