"""What the screen knows and how it gets it: threads, processes, frozen values."""
