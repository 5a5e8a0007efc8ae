"""A run's folder and what lies in it: journal, checkpoints, evaluations; and what is checked before it runs."""
