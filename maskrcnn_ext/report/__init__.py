"""Pictures and the HTML report of a run."""

from maskrcnn_ext.report.page import write_report
from maskrcnn_ext.report.run import read_run

__all__ = ["read_run", "write_report"]
