"""Detectron2's checkpointer with atomic writes, a fallback for damaged files, and a report of the loaded weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from torch import Tensor, nn

from maskrcnn_ext.common.distributed import decide_on_main
from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.compat import strip_prefix
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.engine.checkpoint import files, history
from maskrcnn_ext.engine.checkpoint.class_rows import ClassRows
from maskrcnn_ext.engine.checkpoint.load_report import LoadReport, make_report, own_weights
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# What torch.compile adds to the names of the module that it wraps.
_COMPILED = re.compile(r"\b_orig_mod\.")
# Attributes in which DistributedDataParallel and Lightning keep the model.
_WRAPPERS = ("module.", "model.")
# Suffix of a path that asks Detectron2 to match names by their ends.
_HEURISTICS = "?matching_heuristics="


class Checkpointer(DetectionCheckpointer):
    """Saves and loads the same files as DetectionCheckpointer; a run that is killed while it saves can be resumed.

    Attributes:
        report: describes which weights of the last file were loaded; None before the first one.
        classes: the classes of the model's outputs, which every file stores; None if they are unknown.

    Example::

        checkpointer = Checkpointer(model, "output", trainer=trainer)
        checkpointer.save("model_0004999", iteration=4999)
        checkpointer.resume_or_load("weights.pth", resume=True)
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
        """Prepares.

        Args:
            model: may be wrapped in DistributedDataParallel.
            save_dir: a local folder; with several machines, a folder that all of them share.
            save_to_disk: whether this process writes; None for the main process only.
            allow_pickle: whether files may run code while they are read.
            checkpointables: other objects to save and to restore, such as the trainer.

        Raises:
            InputError: `save_dir` is a URL.
        """
        if "://" in save_dir:
            raise InputError(
                f"train.output_dir={save_dir}: checkpoints are written to a local folder: set one, and copy them elsewhere from there"
            )
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.report: LoadReport | None = None
        self.classes: Classes | None = None
        self._allow_pickle = allow_pickle
        # About the file that is being loaded.
        self._source = ""
        self._uses_heuristics = False
        self._class_rows: ClassRows | None = None
        self._file_shapes: dict[str, tuple[int, ...]] = {}

    def save(self, name: str, **extra: Any) -> None:
        """Writes ``<name>.pth`` with the weights, the state of the checkpointables and `extra`.

        A file of the run's progress, such as ``model_0004999`` or ``model_final``, becomes the one to resume from; other files, such as
        ``model_best``, do not.

        Raises:
            WriteError: it cannot be written, as on a full disk; the existing files are intact.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir) / f"{name}.pth"
        logger.info("Saving checkpoint to %s", path)
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        classes = {} if self.classes is None else {"classes": self.classes.state_dict()}
        files.write({"model": self.model.state_dict(), **classes, **states, **extra}, path)
        if history.is_progress(path.name):
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Writes the file ``last_checkpoint``, which names the checkpoint to resume from."""
        files.write_text(last_filename_basename, Path(self.save_dir) / history.LAST)

    def has_checkpoint(self) -> bool:
        """Returns whether there is a checkpoint to resume from."""
        return bool(self.save_dir and history.list_newest_first(Path(self.save_dir), allow_pickle=self._allow_pickle))

    def resume_or_load(
        self, path: str, *, resume: bool = True, strict: str = "none", class_rows: ClassRows | None = None
    ) -> dict[str, Any]:
        """Resumes from the newest undamaged checkpoint, or loads the weights of `path` if no checkpoint exists. Call this on every rank.

        Args:
            path: initial weights, as for :meth:`load`.
            resume: whether to look for checkpoints.
            strict: for the initial weights, see :meth:`.load_report.LoadReport.require`.
            class_rows: for the initial weights.

        Returns:
            The content of the file without the model and the checkpointables.

        Raises:
            InputError: all checkpoints are damaged; and as :meth:`load`.
        """
        folder = Path(self.save_dir)
        if self.save_dir and self.save_to_disk:
            files.remove_leftovers(folder)
        if resume and self.save_dir:
            newest = decide_on_main(lambda: history.find_newest(folder, allow_pickle=self._allow_pickle))
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
        """Loads a checkpoint or weights, and logs which weights were loaded. Call this on every rank.

        Args:
            path: a file, or a URL that Detectron2 knows, such as detectron2:// and https://. The suffix ``?matching_heuristics=True``
                matches names by their ends. Nothing is loaded from "".
            checkpointables: names of the other objects to load; None for all.
            strict: see :meth:`.load_report.LoadReport.require`.
            class_rows: class names of the file and of the model, to keep the weights of the common classes.

        Returns:
            The content of the file without the model and the checkpointables.

        Raises:
            InputError: the file is missing, damaged, needs to run code, contains no weights, or does not fit.
        """
        if not path:
            extra: dict[str, Any] = super().load(path, checkpointables=[])
            return extra
        self._source, suffix, value = path.partition(_HEURISTICS)
        self._uses_heuristics, self._class_rows = bool(suffix) and value == "True", class_rows
        self._check_file(self._source)
        extra = super().load(self._source, checkpointables=[])
        assert self.report is not None
        self.report.require(strict)
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in extra:
                logger.info("Loading %s from %s", key, self._source)
                with mismatch_explained(f"checkpoint {self._source}: its {key}"):
                    self.checkpointables[key].load_state_dict(extra.pop(key))
        return extra

    def _check_file(self, path: str) -> None:
        """Raises InputError on all ranks if the file is missing on any, so that no rank waits for another."""
        problem = None
        try:
            if not Path(self.path_manager.get_local_path(path)).is_file():
                problem = "no such file"
        except (OSError, KeyError, RuntimeError) as error:  # raised by downloads and by Detectron2's model catalogue
            problem = f"cannot be downloaded ({type(error).__name__}: {error})"
        for rank, found in enumerate(comm.all_gather(problem)):
            if found is not None:
                where = f" on rank {rank}" if comm.get_world_size() > 1 else ""
                raise InputError(f"checkpoint {path}: {found}{where}: fix train.init_checkpoint or copy the file there")

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Reads a file and converts it to the format of Detectron2's loader."""
        found = files.read(Path(filename), allow_pickle=self._allow_pickle)
        if not isinstance(found, dict):
            raise InputError(f"checkpoint {filename}: contains one {type(found).__name__} instead of weights by name")
        if filename.endswith(".pyth") and "model_state" in found:
            weights = _check_weights(filename, found["model_state"])
            weights = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
            found = {"model": weights, "__author__": "pycls", "matching_heuristics": True}
        elif filename.endswith(".pkl") and "model" not in found:
            weights = _check_weights(filename, found.get("blobs", found))
            weights = {key: value for key, value in weights.items() if not key.endswith("_momentum")}
            found = {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        else:
            found = found if "model" in found else {"model": self._lightning_weights(found) or found}
            _check_weights(filename, found["model"])
        if self._uses_heuristics:
            found["matching_heuristics"] = True
        return found

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Loads weights, matched by Detectron2's heuristics if the file or the path asks for them.

        Returns:
            The names and shapes that did not fit, as Detectron2's loader returns them.
        """
        state = checkpoint["model"]
        self._convert_ndarray_to_tensor(state)
        strip_prefix(state, "module.")
        if not state.keys() <= self.model.state_dict().keys():
            state = self._unwrap(state) or state
        if checkpoint.pop("matching_heuristics", False):
            state = self._match_names(state, is_caffe2=checkpoint.get("__author__") == "Caffe2")
        if self._class_rows is not None:
            self._class_rows.apply(state, self.model)
        self._file_shapes = {name: tuple(value.shape) for name, value in state.items()}
        checkpoint["model"] = state
        return super()._load_model(checkpoint)

    def _unwrap(self, state: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the weights without the prefixes of wrappers; None if the names do not fit the model then."""
        state = {_COMPILED.sub("", name): value for name, value in state.items()}
        for prefix in 2 * _WRAPPERS:  # one may be inside the other
            strip_prefix(state, prefix)
        return state if state.keys() <= self.model.state_dict().keys() else None

    def _lightning_weights(self, found: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the weights of this model in a checkpoint of Lightning; None for any other file."""
        weights = found.get("state_dict")
        return (
            self._unwrap(weights)
            if isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
            else None
        )

    def _match_names(self, state: dict[str, Tensor], *, is_caffe2: bool) -> dict[str, Tensor]:
        """Renames the weights of `state` to the model's names as Detectron2 matches them, also those of another shape."""
        ours = self.model.state_dict()
        if not ours.keys() & state.keys():  # weights of a backbone: one that has its own keeps them
            own = own_weights(self.model)
            ours = {name: value for name, value in ours.items() if not name.startswith(own)}
        try:
            matched: dict[str, Tensor] = align_and_update_state_dicts(ours, state, c2_conversion=is_caffe2)
        except ValueError as error:
            raise InputError(
                f"checkpoint {self._source}: {error} (the model has two parts with these names; see the log)"
            ) from error
        for name in [name for name in matched if name not in ours]:
            candidates = (key for key in ours if key not in matched and key.endswith(f".{name}"))
            matched[next(candidates, name)] = matched.pop(name)
        return matched

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """Logs a report instead of Detectron2's lists of names."""
        self.report = make_report(self._source, self.model, self._file_shapes, incompatible)
        self.report.log()


@contextmanager
def mismatch_explained(what: str) -> Iterator[None]:
    """Raises an InputError with advice if a state does not fit the run.

    Args:
        what: the state that is loaded, as the start of the error's sentence, such as ``"the checkpoint in output"``.
    """
    try:
        yield
    except InputError:
        raise
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{what} does not fit this run ({type(error).__name__}: {first_line(error)}): resume with the config that it was trained with, "
            "or start a new run from its weights (train.init_checkpoint, another train.output_dir)"
        ) from error


def _check_weights(filename: str, weights: Any) -> dict[str, Any]:
    """Returns `weights`, after checking that it is a dict of names and tensors.

    Raises:
        InputError: it is not.
    """
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"checkpoint {filename}: contains no weights by name")
    for name, value in weights.items():
        is_array = isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
        if not isinstance(name, str) or not (is_array or isinstance(value, Tensor)):
            fault = f"is a {type(value).__name__} and not a tensor" if isinstance(name, str) else "is not a name"
            raise InputError(
                f"checkpoint {filename}: {name!r:.80} {fault}: Detectron2 loads a dict of names and tensors, or a dict that contains one "
                "under `model`"
            )
    return weights
