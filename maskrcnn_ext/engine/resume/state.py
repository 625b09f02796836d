"""Saves the random state and the data position of every process in checkpoints, and restores them."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from maskrcnn_ext.common.random_state import get_random_state, set_random_state
from maskrcnn_ext.engine.resume.loader import ResumableLoader

logger = logging.getLogger(__name__)


class LoopState:
    """The state of all processes that a checkpoint stores under the key "loop".

    Build the loader after :meth:`before_loader` and before the other methods, since samplers draw their seeds when they are built.
    """

    def __init__(self, saved: dict[str, Any] | None) -> None:
        """Takes the "loop" of a checkpoint; None for a new run, or for a checkpoint of another trainer."""
        self._ranks: list[dict[str, Any]] = saved["ranks"] if saved else []
        self._loader: ResumableLoader | None = None
        self._before_loader: dict[str, Any] = {}

    @property
    def _of_this_rank(self) -> dict[str, Any] | None:
        # If the number of processes has changed: the state of rank 0, whose random numbers seed the samplers of all ranks.
        rank = comm.get_rank() if len(self._ranks) == comm.get_world_size() else 0
        return self._ranks[rank] if self._ranks else None

    def before_loader(self) -> None:
        """Restores the random state from which the loader of the run was first built."""
        if self._of_this_rank is not None:
            set_random_state(self._of_this_rank["before_loader"])
        self._before_loader = get_random_state()

    def set_position(self, loader: ResumableLoader) -> None:
        """Keeps the training's loader, and moves it to its saved position."""
        self._loader = loader
        if self._of_this_rank is None:
            return
        if len(self._ranks) == comm.get_world_size():
            is_exact = loader.load_state_dict(self._of_this_rank["data"])
        else:
            drawn = sum(sum(rank["data"].get("drawn", [])) for rank in self._ranks)
            loader.skip(drawn // comm.get_world_size())
            is_exact = False
        if not is_exact:
            logger.warning(
                "The checkpoint was written with another number of processes or loader workers, or another loader: training continues "
                "after the images that it has seen, but with other random numbers"
            )

    def restore(self) -> None:
        """Starts the loader and restores the random state; call this last before the first iteration."""
        if self._of_this_rank is not None and self._loader is not None:
            self._loader.start()
            if len(self._ranks) == comm.get_world_size():
                set_random_state(self._of_this_rank["random"])

    def collect(self) -> dict[str, Any]:
        """Returns the state to save, on the main process; call this on every process."""
        assert self._loader is not None
        state = {
            "random": get_random_state(),
            "before_loader": self._before_loader,
            "data": self._loader.state_dict(),
        }
        return {"loop": {"ranks": comm.gather(state)}}


class Restore(HookBase):
    """Restores the state of a checkpoint, after all other hooks have run ``before_train``.

    A checkpoint is written before the evaluation of its iteration, so this hook evaluates first, as the run would have done.
    """

    def __init__(self, state: LoopState, *, at_evaluation: list[Any], period: int) -> None:
        """Prepares.

        Args:
            state: the state of the checkpoint.
            at_evaluation: hooks with a method ``at_evaluation()``, in their order.
            period: iterations between evaluations; 0 for none.
        """
        self._state = state
        self._at_evaluation = at_evaluation
        self._period = period

    def before_train(self) -> None:
        """Restores the state, and evaluates if an evaluation was due after the last iteration."""
        self._state.restore()
        done = self.trainer.start_iter
        if done and self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter:
            logger.info("Evaluating iteration %d, whose checkpoint was written before its evaluation", done - 1)
            self.trainer.iter = self.trainer.storage.iter = done - 1
            for hook in self._at_evaluation:
                hook.at_evaluation()
            self.trainer.iter = self.trainer.storage.iter = done
