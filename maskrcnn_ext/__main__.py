"""``python -m maskrcnn_ext``: the same as the console command ``maskrcnn-ext``."""

import sys

from maskrcnn_ext.cli import main

sys.exit(main())
