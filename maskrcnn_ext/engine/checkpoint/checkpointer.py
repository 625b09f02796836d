"""Detectron2's checkpointer with files that are whole, a way back from one that is not, and a report of what was loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from torch import Tensor, nn

from maskrcnn_ext.common.distributed import decide_on_main
from maskrcnn_ext.compat import strip_prefix
from maskrcnn_ext.engine.checkpoint import files, history
from maskrcnn_ext.engine.checkpoint.class_rows import ClassRows
from maskrcnn_ext.engine.checkpoint.weights import LoadReport, report
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# Behind a path: match names by their ends.
_HEURISTICS = "?matching_heuristics="


class Checkpointer(DetectionCheckpointer):
    """Saves and loads as DetectionCheckpointer, in the same files, and survives what kills a run while it does.

    Attributes:
        report: what became of the weights of the file that was loaded last; None before.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        allow_pickle: bool = False,
        **checkpointables: Any,
    ) -> None:
        """As DetectionCheckpointer, and:

        Args:
            model: may be wrapped for several processes.
            save_dir: a folder of this machine; for several machines, one that all of them see.
            save_to_disk: whether this process writes; None for the main process only.
            allow_pickle: let files run the code that they bring.
            checkpointables: what else to save and to resume, such as the trainer.

        Raises:
            InputError: `save_dir` is not a folder of this machine.
        """
        if "://" in save_dir:
            raise InputError(
                f"train.output_dir={save_dir}: checkpoints are written into a folder of this machine; copy them elsewhere from there"
            )
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.report: LoadReport | None = None
        self._allow_pickle = allow_pickle
        # Of the file that is being loaded.
        self._source = ""
        self._heuristics = False
        self._class_rows: ClassRows | None = None
        self._given: dict[str, tuple[int, ...]] = {}

    def save(self, name: str, **extra: Any) -> None:
        """Writes ``<name>.pth`` with the weights, the state of the checkpointables and `extra`.

        A file along the run, such as ``model_0004999`` or ``model_final``, becomes the one to resume from; another, such as
        ``model_best``, does not.

        Raises:
            InputError: it cannot be written, as on a full disk; the files that are there stay as they are.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir) / f"{name}.pth"
        logger.info("Saving checkpoint to %s", path)
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        files.write({"model": self.model.state_dict(), **states, **extra}, path)
        if history.is_of_the_run(path.name):
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Writes the file ``last_checkpoint``."""
        files.write_text(last_filename_basename, Path(self.save_dir) / history.LAST)

    def has_checkpoint(self) -> bool:
        """Whether there is anything to resume from."""
        return bool(self.save_dir and history.newest_first(Path(self.save_dir), allow_pickle=self._allow_pickle))

    def resume_or_load(
        self, path: str, *, resume: bool = True, strict: str = "none", class_rows: ClassRows | None = None
    ) -> dict[str, Any]:
        """Resumes from the newest checkpoint that is whole, or loads the weights of `path` where there is none. On every rank alike.

        Args:
            path: of weights to begin with, as for :meth:`load`.
            resume: look for checkpoints.
            strict: of the weights to begin with, see :meth:`.weights.LoadReport.require`.
            class_rows: of the weights to begin with.

        Returns:
            What the file holds beyond the model and the checkpointables.

        Raises:
            InputError: there are checkpoints and none is whole; and as :meth:`load`.
        """
        folder = Path(self.save_dir)
        if self.save_dir and self.save_to_disk:
            files.remove_leftovers(folder)
        if resume and self.save_dir:
            newest = decide_on_main(lambda: history.newest_whole(folder, allow_pickle=self._allow_pickle))
            if newest is not None:
                return self.load(str(newest))
        return self.load(path, checkpointables=[], strict=strict, class_rows=class_rows)

    def load(
        self,
        path: str,
        checkpointables: list[str] | None = None,
        *,
        strict: str = "none",
        class_rows: ClassRows | None = None,
    ) -> dict[str, Any]:
        """Loads a checkpoint or weights, and logs what fits and what does not. On every rank alike.

        Args:
            path: a file, or a URL that Detectron2 knows, such as detectron2:// and https://; ``?matching_heuristics=True`` behind it
                matches names by their ends. Nothing is loaded from "".
            checkpointables: names of what to load besides the model; None for all.
            strict: see :meth:`.weights.LoadReport.require`.
            class_rows: the class names of the file and of the model, to carry over what was learned of those in common.

        Returns:
            What the file holds beyond the model and the checkpointables.

        Raises:
            InputError: there is no such file, it is damaged, it wants to run code, it holds no weights, or they do not fit.
        """
        if not path:
            extra: dict[str, Any] = super().load(path, checkpointables=[])
            return extra
        self._source, mark, asked = path.partition(_HEURISTICS)
        self._heuristics, self._class_rows = bool(mark) and asked == "True", class_rows
        self._require_file(self._source)
        extra = super().load(self._source, checkpointables=[])
        assert self.report is not None
        self.report.require(strict)
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in extra:
                logger.info("Loading %s from %s", key, self._source)
                try:
                    self.checkpointables[key].load_state_dict(extra.pop(key))
                except InputError:
                    raise
                except (KeyError, ValueError, RuntimeError, TypeError) as error:
                    reason = (str(error).strip().splitlines() or [""])[0]
                    raise InputError(
                        f"checkpoint {self._source}: its {key} does not fit this run ({type(error).__name__}: {reason}): resume with the "
                        "config that it was trained with, or start anew from its weights (train.init_checkpoint, another output_dir)"
                    ) from error
        return extra

    def _require_file(self, path: str) -> None:
        """Looks for a file on all ranks, so that none waits for one that has failed."""
        problem = None
        try:
            if not Path(self.path_manager.get_local_path(path)).is_file():
                problem = "no such file"
        except (OSError, KeyError, RuntimeError) as error:  # of the network, and of Detectron2's catalogue of models
            problem = f"cannot be fetched ({type(error).__name__}: {error})"
        for rank, found in enumerate(comm.all_gather(problem)):
            if found is not None:
                where = f" on rank {rank}" if comm.get_world_size() > 1 else ""
                raise InputError(
                    f"checkpoint {path}: {found}{where}: mend train.init_checkpoint or bring the file there"
                )

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Reads a file and makes of it what Detectron2's loader makes of it."""
        found = files.read(Path(filename), allow_pickle=self._allow_pickle)
        if not isinstance(found, dict):
            raise InputError(f"checkpoint {filename}: holds no weights by name, but one {type(found).__name__}")
        if filename.endswith(".pyth") and "model_state" in found:
            weights = _checked(filename, found["model_state"])
            weights = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
            found = {"model": weights, "__author__": "pycls", "matching_heuristics": True}
        elif filename.endswith(".pkl") and "model" not in found:
            weights = _checked(filename, found.get("blobs", found))
            weights = {key: value for key, value in weights.items() if not key.endswith("_momentum")}
            found = {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        else:
            found = found if "model" in found else {"model": found}
            _checked(filename, found["model"])
        if self._heuristics:
            found["matching_heuristics"] = True
        return found

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Loads weights, matched by Detectron2's own heuristics where the file asks for them; returns the names that did not fit."""
        state = checkpoint["model"]
        self._convert_ndarray_to_tensor(state)
        strip_prefix(state, "module.")
        if checkpoint.pop("matching_heuristics", False):
            state = self._match(state, is_caffe2=checkpoint.get("__author__") == "Caffe2")
        if self._class_rows is not None:
            self._class_rows.apply(state, self.model)
        self._given = {name: tuple(value.shape) for name, value in state.items()}
        checkpoint["model"] = state
        return super()._load_model(checkpoint)

    def _match(self, state: dict[str, Tensor], *, is_caffe2: bool) -> dict[str, Tensor]:
        """Returns `state` under the model's names where Detectron2 matches them, and where it would but for the shape."""
        ours = self.model.state_dict()
        try:
            matched: dict[str, Tensor] = align_and_update_state_dicts(ours, state, c2_conversion=is_caffe2)
        except ValueError as error:
            raise InputError(
                f"checkpoint {self._source}: {error} (the model has two parts with these names; the log names them)"
            ) from error
        for name in [name for name in matched if name not in ours]:
            fresh = (key for key in ours if key not in matched and key.endswith(f".{name}"))
            matched[next(fresh, name)] = matched.pop(name)
        return matched

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """Logs a report in the place of Detectron2's lists."""
        self.report = report(self._source, self.model, self._given, incompatible)
        self.report.log()


def _checked(filename: str, weights: Any) -> dict[str, Any]:
    """Returns weights, a tensor for every name.

    Raises:
        InputError: it has something else.
    """
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"checkpoint {filename}: holds no weights by name")
    for name, value in weights.items():
        is_array = isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
        if not isinstance(name, str) or not (is_array or isinstance(value, Tensor)):
            raise InputError(
                f"checkpoint {filename}: {name!r:.80} is no tensor but one {type(value).__name__}: Detectron2 loads a dict of names and "
                "tensors, or one that has it under `model`"
            )
    return weights
