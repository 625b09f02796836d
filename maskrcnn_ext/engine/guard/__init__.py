"""What keeps a run from becoming nonsense: advice before it starts, a diagnosis when it diverges."""
