"""Measures the package against Detectron2 and other libraries. Each part is a module with ``add_arguments(parser)`` and ``run(args)``."""
