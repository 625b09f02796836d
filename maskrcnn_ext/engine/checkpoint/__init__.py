"""Files of weights and training state: written whole or not at all, read without running code, matched to the model in the open."""
