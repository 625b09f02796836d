#!/usr/bin/env python3
"""Runs ``maskrcnn-ext benchmark`` from a checkout."""

import sys

from maskrcnn_ext.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
