"""The memory of a run, measured on fake tensors."""
