"""What a front end may ask: commands and screen change runs through here and in no other way.

Wishes go into the store, folders are made and moved here; the daemon does what they amount to. Every change says
whether it was made, and if not, why, in the user's words. One thread at a time; the writer's connection is opened at
first need, and runs that the store does not know yet come in with it.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.worker_process import worker_alive
from engine.base.workspace import CHECKPOINTS, Workspace, folder_bytes
from engine.daemon import daemon_client
from engine.runs import checkpoints, resume_run
from engine.runs.checkpoints import checkpoint_folder, step_of
from engine.runs.relocate import located
from engine.runs.run_folder import (
    absolute,
    change_run,
    check_inputs,
    create_run,
    data_fingerprints,
    named,
    read_meta,
    write_config,
)
from engine.settings.resolve import Layer, Resolved, overlay, read_run
from engine.settings.schema import RunConfig
from engine.store import checkpoint_rows, discover, queries, queue, run_lifecycle, trash
from engine.store.connect import Connection, writer
from engine.store.journal_import import import_journal
from engine.store.new_run import new_run
from engine.store.run_records import ACTIVE, ENDED, Outcome, Run, RunState
from engine.store.store_errors import StoreMissing
from engine.store.transactions import BUSY_SECONDS
from engine.store.trash import Trashed

if TYPE_CHECKING:
    from engine.plan.throughput import PastRun

START = "start"
"""In a forked run's folder: the weights it starts from, so that its parent may go."""


class Control:
    def __init__(
        self,
        workspace: Workspace,
        readonly: bool = False,
        busy_seconds: float = BUSY_SECONDS,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        """`busy_seconds`: how long to wait for another process that holds the database's write lock.

        `on_wait` is called when that has taken a second, with how much longer it may take: once, on this thread.
        """
        self.workspace = workspace
        self.readonly = readonly
        self._busy_seconds, self._on_wait = busy_seconds, on_wait
        self.warning = ""
        """Why no daemon could be started that acts on what was changed; front ends tell it."""
        self._conn: Connection | None = None
        self._opened: os.stat_result | None = None
        """Which file the database was."""

    def close(self) -> None:
        if self._conn:
            self._conn.close()
            self._conn = None

    def __enter__(self) -> "Control":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # into the queue

    def add(self, resolved: Resolved, *, after: Sequence[int] = (), held: bool = False) -> int:
        """Queue a run and see that a daemon is there; its id. Raises InputError for what can be seen to be wrong."""
        return self.add_all([resolved], after=after, held=held)[0]

    def add_all(
        self,
        resolved: Sequence[Resolved],
        *,
        after: Sequence[int] = (),
        held: bool = False,
        sweep: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Queue several runs, all or none. `meta`: what else config.json says of them, beside their settings."""
        return self._add(resolved, after, held, sweep, described=meta)

    def fork(self, run_id: int, point: str, changes: Mapping[str, Any], name: str = "", *, held: bool = False) -> int:
        """Queue a new run that starts from the weights of a checkpoint, with a fresh optimizer and other settings."""
        folder = self._run_folder(run_id)
        checkpoint = checkpoint_folder(folder, point)
        before = located(folder)
        forked_from = before.config.replace({"run.name": f"{before.config.run.name}-fork"})
        layers = [Layer(f"run {run_id}", {"model.checkpoint": str(checkpoint)}), Layer("--set", absolute(changes))]
        if name:
            layers.append(Layer("--name", {"run.name": name}))
        forked_settings = overlay(Resolved(forked_from, before.origin), layers, "run")

        def keep_weights(forked: Path, config: RunConfig) -> RunConfig:
            weights = forked / START
            checkpoints.link_weights(Path(config.model.checkpoint), weights)
            return config.replace({"model.checkpoint": str(weights)})

        parent = run_id, step_of(checkpoint)
        return self._add([forked_settings], held=held, parent=parent, prepare=keep_weights)[0]

    def _add(
        self,
        resolved: Sequence[Resolved],
        after: Sequence[int] = (),
        held: bool = False,
        sweep: str = "",
        parent: tuple[int, int] | None = None,
        prepare: Callable[[Path, RunConfig], RunConfig] | None = None,
        described: Mapping[str, Any] | None = None,
    ) -> list[int]:
        from engine.plan.hardware import past_runs, queue_device  # with the memory estimate 20 ms

        conn = self._writer(make=True)
        _check_all([settings.config for settings in resolved])
        for run_id in after:
            if queries.run(conn, run_id) is None:
                raise InputError(
                    msg("there is no run {run_id} to wait for", run_id=run_id), "`finetop ls` lists the runs."
                )
        fingerprints: dict[str, dict[str, Any]] = {}
        queued: dict[str, Any] = {"sweep": sweep, "after": list(after)}
        if parent:
            queued |= {"parent_run": parent[0], "parent_step": parent[1]}
        made: dict[int, Path] = {}
        new_runs = []
        device_name, past = queue_device(self.workspace), past_runs(self.workspace)
        beyond = queue.last_id(conn)
        try:
            for settings in resolved:
                config = named(settings.config)
                files = json.dumps([config.data.files, config.data.val_files, config.method.objective])
                if files not in fingerprints:
                    fingerprints[files] = data_fingerprints(config)
                queued_with = {name: value for name, value in queued.items() if value}
                queued_with |= _estimates(config, device_name, past)
                meta = {"data": fingerprints[files], "queued": queued_with, **(described or {})}
                run_id, folder = create_run(self.workspace, settings, meta, beyond)
                made[run_id] = folder
                if prepare:
                    config = prepare(folder, config)
                    write_config(folder, config, read_meta(folder))
                new_runs.append(new_run(config.flat(), settings.origin, meta["queued"] | {"held": held}))
            queue.add_all(conn, new_runs, run_ids=list(made))
        except BaseException:
            for run_id, folder in made.items():
                if queries.run(conn, run_id) is None:
                    shutil.rmtree(folder, ignore_errors=True)
            raise
        self._see_to_daemon()
        return list(made)

    # by hand: `finetop train` starts its worker itself

    def train(self, resolved: Resolved) -> tuple[int, Path]:
        """A new run that is not queued, and its folder. Without a database it stays without one."""
        beyond = queue.last_id(self._writer()) if self.workspace.database.exists() else 0
        return create_run(self.workspace, resolved, {"data": data_fingerprints(resolved.config)}, beyond)

    def refuse_by_hand(self, run_id: int) -> None:
        """InputError for a run that the queue has plans for, or a worker."""
        run = queries.run(self._writer(), run_id) if self.workspace.database.exists() else None
        if run and run.state is RunState.QUEUED:
            raise InputError(
                msg("run {run_id} waits in the queue", run_id=run_id),
                msg("Take it off first: finetop stop {run_id}", run_id=run_id),
            )
        if run and run.active:
            raise InputError(
                msg("run {run_id} is being trained already", run_id=run_id),
                msg("Watch it: finetop logs {run_id} -f", run_id=run_id),
            )

    def began(self, folder: Path, pid: int) -> None:
        """Its worker has been started by hand: lists show it, and a daemon looks after it and never starts a second."""
        if self.workspace.database.exists() and discover.began(self._writer(), folder, pid):
            resolved = read_run(folder)
            queue.put_settings(self._writer(), int(folder.name), resolved.config.flat(), resolved.origin)

    def ended(self, folder: Path, exit_code: int, out_of_memory: str = "") -> None:
        """That worker is gone; `out_of_memory`: what had run out, where the kernel's OOM killer took it.

        A daemon finds out more than an exit code says, so it is left to it where one runs.
        """
        if self.workspace.database.exists():
            resolved = read_run(folder)  # as it was, where it could not go on
            queue.put_settings(self._writer(), int(folder.name), resolved.config.flat(), resolved.origin)
        if self.workspace.database.exists() and not daemon_client.status(self.workspace).running:
            discover.ended(self._writer(), folder, exit_code, out_of_memory)

    # for whoever shows runs

    def keep_up(self) -> None:
        """Let the store know what it could not hear of: runs that were trained before there was one, or copied here,
        and, where no daemon reads the journals of those at work, what they have written since."""
        if not self.workspace.database.exists() and not self.workspace.run_ids():
            return
        conn = self._writer()
        discover.import_unknown(conn, self.workspace)
        if not daemon_client.status(self.workspace).running:
            for run in queries.active(conn):
                import_journal(conn, run.id, self._place(run))

    # wishes

    def stop(self, run_id: int) -> Outcome:
        """Save, then exit; a waiting run is taken off the queue."""
        return self._request(run_id, "stop")

    def kill(self, run_id: int) -> Outcome:
        return self._request(run_id, "kill")

    def _request(self, run_id: int, signal: str) -> Outcome:
        conn = self._writer()
        outcome = queue.request(conn, run_id, signal)
        if not outcome or outcome.state not in ACTIVE:
            return outcome
        self._see_to_daemon()  # nobody else carries it out
        run = queries.run(conn, run_id)
        if signal == "kill" or run is None or not queries.lacks_room(conn, run):
            return outcome
        paused = msg(
            "it has paused since there is no room on its disk, and stops once it could save;"
            " finetop kill {run_id} ends it now, without saving",
            run_id=run_id,
        )
        return dataclasses.replace(outcome, notes=(*outcome.notes, paused))

    def put_back(self, run_id: int) -> Outcome:
        """Undo that `stop` or `kill` took a waiting run off the queue: back to its place, held if it was."""
        outcome = queue.put_back(self._writer(), run_id)
        if outcome:
            self._see_to_daemon()
        return outcome

    def refuse(self, run_id: int, why: str) -> Outcome:
        """End a waiting run as failed: it cannot be trained."""
        return run_lifecycle.refuse(self._writer(), run_id, why)

    def hold(self, run_id: int) -> Outcome:
        return queue.hold(self._writer(), run_id)

    def release(self, run_id: int) -> Outcome:
        outcome = queue.release(self._writer(), run_id)
        if outcome:
            self._see_to_daemon()
        return outcome

    def move(self, run_id: int, to: int | str) -> Outcome:
        """To a place of the queue (0 is the front), or 'up', 'down', 'top', 'bottom'."""
        return queue.move(self._writer(), run_id, to)

    def resume(self, run_id: int, point: str = "latest", changes: Mapping[str, Any] | None = None) -> Outcome:
        """Queue an ended run again, to go on from a checkpoint; `changes` may be such as do not make it another run.
        The outcome's notes say where its files lie by now, and what becomes of its learning rate."""
        conn = self._writer()
        run = queries.run(conn, run_id)
        if run is None or run.state not in ENDED or run.trashed is not None:
            return queue.resume(conn, run_id)  # which says why not
        folder = self.workspace.runs / str(run_id)
        if worker_alive(folder):
            return Outcome(
                False, run_id, run.state, msg("run {run_id} still has a worker, which has not left yet", run_id=run_id)
            )
        try:
            self._folder_there(run)
            step = None if point == "latest" else step_of(checkpoint_folder(folder, point))
            resumed = resume_run.check_resume(folder, [Layer("resume", dict(changes))] if changes else [], point)
            if run.state is RunState.DONE and point == "latest" and not resumed.changed:
                return Outcome(
                    False,
                    run_id,
                    run.state,
                    msg(
                        "run {run_id} is done, there is nothing left to do; train it further with:"
                        " finetop resume {run_id} --epochs N",
                        run_id=run_id,
                    ),
                )
            resume_run.apply(folder, resumed)
            queue.put_settings(conn, run_id, resumed.settings.config.flat(), resumed.settings.origin)
        except EngineError as error:
            return _refused(run, error)
        outcome = queue.resume(conn, run_id, step)
        if outcome:
            self._see_to_daemon()
        held = (msg("it is still held: finetop release {run_id} lets it start", run_id=run_id),) if run.held else ()
        return dataclasses.replace(outcome, notes=(*resumed.notes, *held)) if outcome else outcome

    def choose_best(self, run_id: int, by: str) -> str:
        """Let another metric say which of an ended run's checkpoints is the best, from its evaluations; what that came
        to, in words. The run goes on with it, should it be resumed. Raises InputError."""
        from engine.runs.reselect_best import choose_anew  # 20 ms

        conn, folder = self._writer(), self._run_folder(run_id)
        run = queries.run(conn, run_id)
        if run is None or run.state not in ENDED or worker_alive(folder):
            again = msg("finetop resume {run_id} --set eval.best={by}", run_id=run_id, by=by)
            raise InputError(
                msg("run {run_id} has not ended", run_id=run_id),
                msg("Stop it first, and then once more, or: {again}", again=again),
            )
        choice, after = choose_anew(folder, by)
        queue.put_settings(conn, run_id, after.config.flat(), after.origin)
        import_journal(conn, run_id, folder)
        return choice.words

    def _see_to_daemon(self) -> None:
        """The change is made, whether or not a daemon can be started that acts on it."""
        try:
            self.start_daemon()
        except (EngineError, OSError) as error:
            self.warning = (
                str(error)
                if isinstance(error, EngineError)
                else msg("no daemon could be started: {error}", error=error)
            )

    def start_daemon(self) -> bool:
        """True if one was started now."""
        return daemon_client.ensure(self.workspace)

    def seen(self, user: str, when: float) -> None:
        """Remember when a user last looked, so that the next visit can tell what happened since."""
        if self.workspace.database.exists():
            queue.set_meta(self._writer(), f"seen:{user}", str(when))

    # words about a run

    def rename(self, run_id: int, name: str, seen: str | None = None) -> Outcome:
        """`seen`: the name that was shown; the outcome notes it where somebody else has given another since."""
        if not name.strip():
            return Outcome(False, run_id, None, "a name has at least one character")
        return self._describe(run_id, {"run.name": name.strip()}, seen, name=name.strip())

    def tag(self, run_id: int, tags: Sequence[str], seen: Sequence[str] | None = None) -> Outcome:
        """`seen`: the tags that were shown, as in `rename`."""
        return self._describe(run_id, {"run.tags": list(tags)}, None if seen is None else tuple(seen), tags=tuple(tags))

    def note(self, run_id: int, text: str, seen: str | None = None) -> Outcome:
        """`seen`: the note that was shown, as in `rename`."""
        conn = self._writer()
        run = queries.run(conn, run_id)
        if run is None:
            return queue.edit(conn, run_id, note=text)
        try:
            folder = self._folder_there(run)
            meta = read_meta(folder)
            write_config(folder, read_run(folder).config, meta | {"queued": {**meta.get("queued", {}), "note": text}})
        except EngineError as error:
            return _refused(run, error)
        return _noting(queue.edit(conn, run_id, note=text), seen, run.note)

    def _describe(self, run_id: int, settings: Mapping[str, Any], seen: object, **columns: Any) -> Outcome:
        """Into the folder first, which is the truth about a run, then into the store."""
        conn = self._writer()
        run = queries.run(conn, run_id)
        if run is None:
            return queue.edit(conn, run_id, **columns)
        try:
            after = change_run(self._folder_there(run), [Layer("renamed" if "name" in columns else "tagged", settings)])
        except EngineError as error:
            return _refused(run, error)
        queue.put_settings(conn, run_id, after.config.flat(), after.origin)
        return _noting(queue.edit(conn, run_id, **columns), seen, run.name if "name" in columns else run.tags)

    # checkpoints

    def pin(self, run_id: int, step: int, pinned: bool = True) -> Outcome:
        """Keep a checkpoint whatever the retention settings say. A marker in its folder tells the worker."""
        outcome = self._on_disk(run_id, lambda run, folder: checkpoints.pin(folder, step, pinned))
        if outcome:
            checkpoint_rows.pin(self._writer(), run_id, step, pinned)
        return outcome

    def delete_checkpoint(self, run_id: int, step: int, force: bool = False) -> Outcome:
        """Move a checkpoint to the trash. The only one of a run goes only by `force`, a pinned one never."""

        def move_out(run: Run, folder: Path) -> None:
            daemon_client.make_private(self.workspace)
            busy = run.active or worker_alive(folder.parent)
            checkpoints.move_out(folder, step, trash.place(self.workspace, run_id, step), busy, force)

        outcome = self._on_disk(run_id, move_out)
        if outcome:
            conn = self._writer()
            checkpoint_rows.checkpoint_removed(conn, run_id, step)
            message = msg("the checkpoint of step {step} was moved to the trash", step=step)
            queue.note(conn, run_id, "checkpoint-deleted", message, step)
        return outcome

    def _on_disk(self, run_id: int, act: Callable[[Run, Path], None]) -> Outcome:
        """Act on a run's folder of checkpoints, of which the store then knows what the journal tells."""
        conn = self._writer()
        run = queries.run(conn, run_id)
        if run is None:
            return Outcome(False, run_id, None, msg("there is no run {run_id}", run_id=run_id))
        try:
            folder = self._folder_there(run)
            act(run, folder / CHECKPOINTS)
        except EngineError as error:
            return _refused(run, error)
        import_journal(conn, run_id, folder)  # the daemon may not have imported it yet
        return Outcome(True, run_id, run.state)

    # the trash

    def run_bytes(self, run_id: int) -> int:
        """What a run's folder takes on disk, wherever it lies; files with several names count once."""
        return sum(folder_bytes(base / str(run_id)) for base in (self.workspace.runs, self.workspace.trash))

    def trashed(self) -> tuple[Trashed, ...]:
        """What lies in the trash, the oldest deletion first."""
        return trash.contents(self._writer(), self.workspace)

    def trash(self, run_id: int) -> Outcome:
        """Out of the lists, its folder into the trash. Not while it has a worker."""
        conn = self._writer()
        run = queries.run(conn, run_id)
        if run and not run.active and worker_alive(self.workspace.runs / str(run_id)):
            return Outcome(
                False, run_id, run.state, msg("run {run_id} still has a worker, which has not left yet", run_id=run_id)
            )
        try:
            daemon_client.make_private(self.workspace)
        except EngineError as error:
            return Outcome(False, run_id, run.state if run else None, error.message)
        return trash.put(conn, self.workspace, run_id)

    def restore(self, run_id: int) -> Outcome:
        """Back out of the trash; a run that was waiting comes back held."""
        return trash.restore(self._writer(), self.workspace, run_id)

    def restore_checkpoint(self, run_id: int, step: int) -> Outcome:
        """Back out of the trash into its run, which must not have gone another way since."""
        return trash.restore_checkpoint(self._writer(), self.workspace, run_id, step)

    def purge(self, run_id: int) -> Outcome:
        """Delete a run of the trash for good, with its checkpoints there."""
        return trash.purge(self._writer(), self.workspace, run_id)

    def purge_checkpoint(self, run_id: int, step: int) -> Outcome:
        """Delete a checkpoint of the trash for good."""
        return trash.purge(self._writer(), self.workspace, run_id, step)

    def groups(self) -> set[str]:
        """The names of all groups of runs, also of those in the trash."""
        if not self.workspace.database.exists():
            return set()
        return queries.groups(self._writer())

    # shared

    def _writer(self, make: bool = False) -> Connection:
        if self.readonly:
            raise EngineError("this is a look only: nothing is changed", "Leave out --readonly to act.")
        if self._conn is not None and not self._is_open_here():
            self.close()
        if self._conn is None:
            if self._opened and not self.workspace.database.exists():
                raise StoreMissing(
                    msg("{database} is gone", database=self.workspace.database),
                    "`finetop rebuild` makes it again from the run folders.",
                )
            if not make and not self.workspace.database.exists() and not self.workspace.run_ids():
                raise StoreMissing(
                    msg("there are no runs in {root}", root=self.workspace.root), "Another folder's: --workspace DIR."
                )
            self._conn = writer(self.workspace.database, self._busy_seconds, self._on_wait)
            self._opened = os.stat(self.workspace.database)
            discover.import_unknown(self._conn, self.workspace)
        return self._conn

    def _is_open_here(self) -> bool:
        """Whether runs.db is the file that is open: what goes into one that was deleted or put aside is lost."""
        try:
            return self._opened is not None and os.path.samestat(os.stat(self.workspace.database), self._opened)
        except OSError:
            return False

    def _place(self, run: Run) -> Path:
        return self.workspace.place(run.id, run.trashed is not None)

    def _run_folder(self, run_id: int) -> Path:
        run = queries.run(self._writer(), run_id)
        return self.workspace.run_folder(run_id) if run is None else self._folder_there(run)

    def _folder_there(self, run: Run) -> Path:
        """A run's folder. Raises InputError where somebody has taken it away."""
        folder = self._place(run)
        if not folder.is_dir():
            raise InputError(
                msg("the folder of run {id} is gone: {folder}", id=run.id, folder=folder),
                msg("Bring it back, or delete the run: finetop rm {id}", id=run.id),
            )
        return folder


def _check_all(configs: list[RunConfig]) -> None:
    """Every different problem of all of them at once."""
    problems: dict[str, EngineError] = {}
    for config in configs:
        try:
            check_inputs(config)
        except InputError as error:
            problems.setdefault(error.message, error)
    if len(problems) == 1:
        raise next(iter(problems.values()))
    if problems:
        raise InputError("\n".join(problems), "Nothing was queued.")


def _estimates(config: RunConfig, device_name: str, past: "Sequence[PastRun]") -> dict[str, Any]:
    from engine.plan import memory_estimate
    from engine.plan.hardware import queue_inputs

    estimate = memory_estimate(config, inputs=queue_inputs(device_name, config.method.kind, past))
    return {"estimate_bytes": int(estimate.expected)} if estimate else {}


def _noting(outcome: Outcome, seen: object, current: object) -> Outcome:
    """The outcome of a change of what was `seen`, with a note where it had become something else meanwhile."""
    if not outcome or seen is None or seen == current:
        return outcome
    told = ", ".join(current) if isinstance(current, tuple) else current
    note = msg("somebody else had changed it meanwhile to '{current}'", current=told)
    return dataclasses.replace(outcome, notes=(*outcome.notes, note))


def _refused(run: Run, error: EngineError) -> Outcome:
    return Outcome(False, run.id, run.state, f"{error.message}\n{error.hint}".rstrip())
