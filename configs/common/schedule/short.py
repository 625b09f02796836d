"""A schedule for small data: it scales with `train.max_iter`, because its milestones are shares of the run."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

lr_multiplier = L(WarmupParamScheduler)(
    # the rate falls tenfold at 70 % and at 90 % of the run
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1, 0.01], milestones=[70, 90, 100]),
    warmup_length=0.1,
    warmup_method="linear",
    warmup_factor=0.01,
)
