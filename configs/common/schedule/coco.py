"""The "1x" and "3x" schedules of the COCO baselines, at 16 images an iteration.

1x is 90 000 iterations: 90 000 x 16 images / 118 000 images = 12.2 epochs. The rate falls tenfold 30 000 and 10 000 iterations before
the end in 1x (Detectron2's Base-RCNN-FPN.yaml: 60 000, 80 000 of 90 000), 60 000 and 20 000 before it in 3x (210 000, 250 000 of
270 000), after a linear warm-up of 1000 iterations from a thousandth of it.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler


def _multi_step(milestones):
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1, 0.01], milestones=milestones),
        warmup_length=1000 / milestones[-1],
        warmup_method="linear",
        warmup_factor=0.001,
    )


lr_multiplier_1x = _multi_step([60000, 80000, 90000])
lr_multiplier_3x = _multi_step([210000, 250000, 270000])
