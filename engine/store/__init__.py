"""The store: runs.db, and the only place that knows SQL.

connect     open it for reading or for writing, transactions, noticing changes
schema      numbered migrations (the only importer of sqlite_utils)
records     what comes out: Run, RunState, Checkpoint, Chart, ...
queue       what may be done to runs, each a guarded change that says if it lost
ingest      journal.jsonl -> rows, from the last imported byte on
metrics     points, one summary per series, and the pyramid that charts read
charts, reads, filters, samples     what may be asked
course      how far a run had come by so many tokens, or so much time at work
measured    what earlier runs took, for plans
takein      runs of the workspace that the store does not know yet
rebuild     runs.db anew from the run folders
health      how the database is, for the doctor
"""
