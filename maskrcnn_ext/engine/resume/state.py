"""The random generators and the place in the data of every process, gathered into a checkpoint and put back from it."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from maskrcnn_ext.common.random_state import get_random_state, set_random_state
from maskrcnn_ext.engine.resume.loader import ResumableLoader

logger = logging.getLogger(__name__)


class LoopState:
    """What a checkpoint holds of the processes, under the key "loop".

    The loader is to be built between :meth:`before_loader` and the rest: samplers draw their seeds when they are built.
    """

    def __init__(self, saved: dict[str, Any] | None) -> None:
        """Takes what a checkpoint has under "loop"; None for a run that begins, or a checkpoint of another trainer."""
        self._ranks: list[dict[str, Any]] = saved["ranks"] if saved else []
        self._loader: ResumableLoader | None = None
        self._before_loader: dict[str, Any] = {}

    @property
    def _mine(self) -> dict[str, Any] | None:
        # Of another number of processes: the first one's, whose random numbers seed the samplers of all.
        rank = comm.get_rank() if len(self._ranks) == comm.get_world_size() else 0
        return self._ranks[rank] if self._ranks else None

    def before_loader(self) -> None:
        """Makes the random generators be as they were before the loader of the run was first built."""
        if self._mine is not None:
            set_random_state(self._mine["before_loader"])
        self._before_loader = get_random_state()

    def to_place(self, loader: ResumableLoader) -> None:
        """Takes the training's loader, and puts it to its place in the data."""
        self._loader = loader
        if self._mine is None:
            return
        if len(self._ranks) == comm.get_world_size():
            exact = loader.load_state_dict(self._mine["data"])
        else:
            drawn = sum(sum(rank["data"].get("drawn", [])) for rank in self._ranks)
            exact = loader.skip(drawn // comm.get_world_size())
        if not exact:
            logger.warning(
                "The checkpoint is of another number of processes or loader workers, or of another loader: training goes on after the "
                "images that it had seen, but not with the random numbers that would have followed"
            )

    def restore(self) -> None:
        """Starts the loader and puts the random generators back: the last that is done before the first iteration."""
        if self._mine is not None and self._loader is not None:
            self._loader.start()
            if len(self._ranks) == comm.get_world_size():
                set_random_state(self._mine["random"])

    def collect(self) -> dict[str, Any]:
        """Returns, in the main process, what to save; to be called in every process."""
        assert self._loader is not None
        mine = {
            "random": get_random_state(),
            "before_loader": self._before_loader,
            "data": self._loader.state_dict(),
        }
        return {"loop": {"ranks": comm.gather(mine)}}


class Restore(HookBase):
    """Puts a run back to where its checkpoint was: after all other hooks have prepared themselves.

    A checkpoint is written before the evaluation of its iteration. That evaluation is done first, as the run would have.
    """

    def __init__(self, state: LoopState, *, at_evaluation: list[Any], period: int) -> None:
        """Prepares.

        Args:
            state: of the checkpoint.
            at_evaluation: hooks with a method ``at_evaluation()``, in their order.
            period: iterations from one evaluation to the next; 0 for none.
        """
        self._state = state
        self._at_evaluation = at_evaluation
        self._period = period

    def before_train(self) -> None:
        """Restores, and evaluates where the last iteration was one to evaluate."""
        self._state.restore()
        done = self.trainer.start_iter
        if done and self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter:
            logger.info("Evaluating iteration %d, which the checkpoint was written before", done - 1)
            self.trainer.iter = self.trainer.storage.iter = done - 1
            for hook in self._at_evaluation:
                hook.at_evaluation()
            self.trainer.iter = self.trainer.storage.iter = done
