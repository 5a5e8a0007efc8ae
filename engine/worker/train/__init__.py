"""The training loop, on one GPU or several."""
