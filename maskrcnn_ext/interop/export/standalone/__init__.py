"""Files that stand alone, for programs without this package."""
