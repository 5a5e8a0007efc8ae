"""Which run is better, and how sure that is. No torch; numpy only inside functions."""
