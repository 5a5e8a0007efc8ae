"""The engine behind `finetop serve`: one process for each base model, which answers over a Unix socket."""
