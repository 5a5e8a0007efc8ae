"""The model: loading, attention, linear layers, loss, optimizer."""
