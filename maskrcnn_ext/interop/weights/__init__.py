"""Imports weights of other frameworks.

Each framework has a folder with ``convert.py``, whose function ``convert(path, ...)`` reads a file, maps its keys to Detectron2's,
accounts for every key, and returns the weights with the LazyConfig that they belong to. :func:`.conversion.write_model` writes both.
"""
