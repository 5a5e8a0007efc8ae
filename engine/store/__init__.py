"""The store: runs.db, and the only place that knows SQL.

connect     open it for reading or for writing, transactions, noticing changes
transactions, store_errors          write transactions, and what can be wrong with runs.db
schema              numbered migrations (the only importer of sqlite_utils)
run_records, rows   what comes out: Run, RunState, Checkpoint, Chart, ...; rows into these
new_run             what the queue needs to know of a run, from its settings
queue               what may be done to runs, each a guarded change that says if it lost
journal_import      journal.jsonl -> rows, from the last imported byte on
series              points, one summary per series, and the pyramid that charts read
queries, filters, chart_queries, gpu_samples    what may be asked
progress_queries    how far a run had come by so many tokens, or so much time at work
past_runs           what earlier runs took, for plans
discover            runs of the workspace that the store does not know yet
rebuild             runs.db made again from the run folders
database_health     how the database is, for the doctor
"""
