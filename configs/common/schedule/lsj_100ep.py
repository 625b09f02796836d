"""100 epochs at 64 images (Detectron2's new_baselines): 184 375 iterations x 64 images / 118 000 images = 100.

The rate falls tenfold after 163 889 (8/9 of the run) and 177 546 iterations (26/27). The warm-up is that of the config.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1, 0.01], milestones=[163889, 177546], num_updates=184375),
    warmup_length=500 / 184375,
    warmup_factor=0.067,
)
