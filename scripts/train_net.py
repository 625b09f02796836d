#!/usr/bin/env python3
"""Trains or evaluates a LazyConfig, with the arguments of Detectron2's tools/lazyconfig_train_net.py.

    python scripts/train_net.py --config-file domains/nuclei.py --num-gpus 0 train.max_iter=2000

``--config-file`` also accepts the name of a config that ships with maskrcnn_ext. The named data sets are registered.
``maskrcnn-ext train-net`` runs the same code. torchrun and SLURM take this file, or ``-m maskrcnn_ext train-net``.
"""

import sys

from maskrcnn_ext.engine.main import main

if __name__ == "__main__":
    sys.exit(main())
