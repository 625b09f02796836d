"""From ``dataset.names`` to Detectron2's dicts in three steps: resolve the name, read the files, convert the records.

:mod:`~maskrcnn_ext.data.registry.resolve` finds the data set of a name: a :class:`~maskrcnn_ext.data.registry.source.Source`, from
``domains/``, from a team's catalogue or from a string such as ``coco:a.json@images``. The source reads plain records with the
function of its format. :mod:`~maskrcnn_ext.data.registry.dicts` converts these into Detectron2's dicts. The functions for users are in
:mod:`~maskrcnn_ext.data.registry.catalog`.
"""
