"""Checkpoints for other programs: adapter, merged model, GGUF."""
