"""The rules of a plan, one file a subject. A rule is a function of the situation that returns a choice; none of them reads a file."""
