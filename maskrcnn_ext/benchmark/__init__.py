"""Measures the package against what it stands beside: one part a module, with ``add_arguments(parser)`` and ``run(args)``."""
