"""Files to copy beside a program: they need NumPy and OpenCV only."""
