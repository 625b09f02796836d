"""Serves a model over HTTP: JSON, and a page to try it.

An image on its way through ``maskrcnn-ext serve``:

1. :func:`app.build_app` makes the web application. It reads the upload, within limits of bytes and time, and never decodes it.
2. :class:`workers.Workers` keeps processes that hold the model. Images that wait together share a batch. A process that dies or exceeds the
   time limit is replaced; only the image at fault gets an error.
3. In the process, :class:`answers.Answerer` checks the number of pixels by the header, decodes the images, and predicts them with a
   detector of :mod:`detectors`: a run, an ensemble of runs, or an exported model.

Messages between the processes are JSON and the bytes of images; nothing that a client sends is unpickled.
"""
