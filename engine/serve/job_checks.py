"""The files of a job are read in another process; then its run takes its turn, or ends as failed with the line that is
wrong. A server that was killed goes on with that when it is started again.
"""

import asyncio
import json
from functools import partial

from engine.base.worker_process import worker_command, worker_environment
from engine.control import Control
from engine.runs.run_folder import read_meta
from engine.serve.context import Context
from engine.settings.resolve import read_run
from engine.store import queries
from engine.store.run_records import Outcome, RunState
from engine.store.serve_store import JOB, StoredJob


def start_check(context: Context, job: StoredJob) -> None:
    """Read the job's files beside everything else, then let it take its turn."""
    task = asyncio.get_running_loop().create_task(_check(context, job))
    context.tasks.add(task)
    task.add_done_callback(context.tasks.discard)


async def _check(context: Context, job: StoredJob) -> None:
    store, run_id = context.store, job.run_id
    folder = context.workspace.runs / str(run_id)
    if job.record.get("remark"):
        store.note(run_id, job.record["remark"], "warn")
    store.note(run_id, f"Validating training file: {job.record['training_file']}")
    config = read_run(folder).config
    files = [*config.data.files[:1], *config.data.val_files[:1]]
    process = await asyncio.create_subprocess_exec(
        *worker_command(*files, module="engine.serve.check_files"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=worker_environment(),
    )
    out, _ = await process.communicate()
    for path in files:  # where it lies is nobody's business
        out = out.replace(json.dumps(path)[1:-1].encode(), b"file")
    checked = [json.loads(line) for line in out.splitlines()]
    names = [("training_file", job.record["training_file"]), ("validation_file", job.record["validation_file"])]
    for (param, file_id), report in zip(names, checked, strict=False):
        if report["error"]:
            message = "\n".join([report["error"].partition("\n")[0], *report["problems"]])
            error = {"code": f"invalid_{param}", "param": param, "message": f"{file_id}: {message}"}
            store.set_status(run_id, "failed", error=error)
            store.note(run_id, f"{file_id} cannot be used: {message}", "error")
            await context.change(partial(_refuse, run_id, error["message"]))
            return
        if report["bad_rows"]:
            first = report["problems"][0] if report["problems"] else ""
            store.note(run_id, f"{file_id}: {report['bad_rows']} rows are left out, the first is {first}", "warn")
    if len(checked) < len(files):
        store.note(run_id, "The files could not be read beforehand; the run will tell.", "warn")
    now = store.job(run_id)
    if now is not None and now.status == "validating":
        store.set_status(run_id, "")
        store.note(run_id, "Files validated, moving job to queued state")
        await context.change(lambda control: control.release(run_id))


def _refuse(run_id: int, why: str, control: Control) -> Outcome:
    return control.refuse(run_id, why)


def adopt(context: Context) -> list[StoredJob]:
    """After the server was killed: jobs whose run was made and not written down are written down; those whose files
    have not been read are returned."""
    with context.reading() as conn:
        runs = queries.list_runs(conn)
    written_down = {job.run_id for job in context.store.jobs()}
    for run in runs:
        record = read_meta(context.workspace.runs / str(run.id)).get(JOB) if run.id not in written_down else None
        if isinstance(record, dict):
            is_waiting = run.state is RunState.QUEUED and run.held
            context.store.add_job(StoredJob(run.id, record["created"], "validating" if is_waiting else "", record))
            context.store.finish_request(record.get("request", ""), run.id)
    context.store.forget_unfinished()
    held = {run.id for run in runs if run.state is RunState.QUEUED}
    return [job for job in context.store.jobs() if job.status == "validating" and job.run_id in held]
