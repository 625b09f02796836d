#!/usr/bin/env python3
"""Trains or evaluates a LazyConfig: takes what Detectron2's tools/lazyconfig_train_net.py takes.

    python scripts/train_net.py --config-file domains/nuclei.py --num-gpus 0 train.max_iter=2000

``--config-file`` also takes the name of a config that ships with maskrcnn_ext, and the named data sets are registered.
"""

import sys

from maskrcnn_ext.engine.main import main

if __name__ == "__main__":
    sys.exit(main())
