"""Loss, answers and labels of a model on examples."""
