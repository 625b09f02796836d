"""Prediction: images, folders, large images, video.

An image on its way through ``maskrcnn-ext predict``:

1. :func:`sources.find_inputs` turns the arguments into a list of :class:`sources.InputImage`: how to read the image, the name of its
   outputs, its id, and a key that changes when the file changes. For videos, :func:`jobs.video_job.predict_video` makes one of each frame.
2. :class:`jobs.job.Job` passes the images on in chunks and saves everything. Its :class:`jobs.batch_runner.BatchRunner` skips images whose
   key is in the journal. It reads one chunk ahead in threads: :meth:`predictor.Predictor.pixels` decodes, ``prepare`` resizes.
3. :meth:`predictor.Predictor.run` predicts images of one padded size together and yields Detectron2 ``Instances`` with masks as RLEs.
   With ``--tile``, :class:`tiling.predictor.TiledPredictor` predicts a large image tile by tile and merges the tiles' detections.
   If a batch fails, its images are predicted one by one, so that only the image at fault is lost.
4. :func:`results.to_coco` turns the instances into COCO results, which :class:`jobs.journal.Journal` writes to the disk at once. From here
   on, a kill costs nothing. With ``--ray``, workers do steps 2 to 4, each with its own journals, which the job reads.
5. The job reads each result back from the journal (:func:`results.from_coco`), tracks objects in videos
   (:class:`video.tracking.Tracker`), and appends to ``predictions.json``. New and known images take the same path.
6. :class:`outputs.predicted_image.PredictedImage` joins the image with its objects of sufficient score, highest first. Each kind of
   output is a function of it (``outputs.OUTPUTS``) that returns file contents; the job writes them atomically.

From Python, :class:`maskrcnn_ext.Predictor` and :class:`maskrcnn_ext.TiledPredictor` are step 3. :mod:`loading` builds the model and
reads the class names; :mod:`optimization` makes it faster.
"""
