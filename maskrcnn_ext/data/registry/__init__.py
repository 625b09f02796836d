"""From ``dataset.names`` to Detectron2's dicts: named data sets, one-line sources and a team's catalogue."""
