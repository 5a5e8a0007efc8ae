"""What every other package may import: errors, units, files that are whole, the workspace, starting a worker."""
