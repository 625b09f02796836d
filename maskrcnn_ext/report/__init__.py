"""Pictures and the HTML pages of runs and data sets."""
