"""What a model is, without loading it: its shape, its modules, its weights by content."""
