"""Values as text for people: what the commands print and the screen shows."""
