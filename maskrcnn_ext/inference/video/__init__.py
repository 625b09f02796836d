"""Reading and writing video, and tracking objects through it."""
