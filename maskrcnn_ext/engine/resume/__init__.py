"""What a checkpoint has to hold beside weights for the next iteration to be the one that would have come: generators, place in the data."""
