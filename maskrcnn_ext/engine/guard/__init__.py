"""Guards against bad runs: a check of the settings before the first iteration, and of the numbers in every iteration."""
