"""On-disk annotation formats, one a file. Each reads into the same plain records; none imports Detectron2."""
