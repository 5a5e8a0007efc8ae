"""What a run is asked to be: settings, where each comes from, presets and sweeps."""
