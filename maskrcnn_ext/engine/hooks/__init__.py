"""What training does beside its steps, one hook a file."""
