"""Opening runs.db: made once, migrated once, refused politely."""

import contextlib
import sqlite3
import stat
import subprocess
import sys
import time

import pytest
from sqlite_utils import Migrations

from engine.store import queries, queue, schema, transactions
from engine.store.connect import SCHEMA_VERSION, Changes, reader, writer
from engine.store.run_records import NewRun
from engine.store.store_errors import StoreBusy, StoreForeign, StoreFull, StoreMissing, StoreNewer, StoreOlder
from engine.store.transactions import write
from tests.engine.mounts import fill_up, small_disk
from tests.engine.store import storekit

OPEN_AND_ADD = """
import sys, time
from pathlib import Path
from engine.store import queue
from engine.store.connect import writer
from engine.store.run_records import NewRun
path, start = Path(sys.argv[1]), float(sys.argv[2])
time.sleep(max(0, start - time.time()))
conn = writer(path)
print(queue.add(conn, NewRun(name="run")))
"""


def test_several_processes_make_the_database_at_once_and_all_add_their_run(tmp_path):
    path = tmp_path / "runs.db"
    start = time.time() + 0.5
    ids = storekit.outputs([storekit.process(OPEN_AND_ADD, path, start) for _ in range(4)])
    assert sorted(map(int, ids)) == [1, 2, 3, 4]
    conn = reader(path)
    assert conn.execute("SELECT count(*) FROM _sqlite_migrations").fetchone() == (SCHEMA_VERSION,)
    assert transactions.journal_mode(conn) == "wal"


def test_the_version_constant_is_the_number_of_migrations():
    assert len(schema.MIGRATIONS._migrations) == SCHEMA_VERSION


def test_an_older_database_is_migrated_after_a_backup(tmp_path):
    path = tmp_path / "runs.db"
    conn = writer(path)
    queue.add(conn, NewRun(name="before"))
    newer = Migrations("finetop")
    newer._migrations = list(schema.MIGRATIONS._migrations)

    @newer()
    def m999_colour(db):
        db["runs"].add_column("colour", str)

    backup = schema.migrate(conn, path, newer)
    assert backup is not None and stat.S_IMODE(backup.stat().st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("SELECT name FROM runs").fetchall() == [("before",)]
        assert copy.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert conn.execute("SELECT name, colour FROM runs").fetchall() == [("before", None)]
    assert schema.migrate(conn, path, newer) is None


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path):
    path = tmp_path / "runs.db"
    conn = writer(path)
    broken = Migrations("finetop")
    broken._migrations = list(schema.MIGRATIONS._migrations)

    @broken()
    def m999_broken(db):
        db["runs"].add_column("colour", str)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        schema.migrate(conn, path, broken)
    assert conn.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert "colour" not in [row[1] for row in conn.execute("PRAGMA table_info(runs)")]
    assert queue.add(conn, NewRun()) == 1


def test_a_newer_database_is_refused_by_readers_and_writers_and_left_alone(tmp_path):
    path = tmp_path / "runs.db"
    conn = writer(path)
    conn.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    conn.close()
    before = path.read_bytes()
    for open_it in (writer, reader):
        with pytest.raises(StoreNewer, match="newer finetop"):
            open_it(path)
    assert path.read_bytes() == before


def test_other_people_s_databases_and_no_databases_are_refused(tmp_path):
    theirs = tmp_path / "runs.db"
    with contextlib.closing(sqlite3.connect(theirs)) as conn:
        conn.execute("CREATE TABLE runs(x)")
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"not a database, but long enough to be looked at" * 50)
    for path in (theirs, noise):
        for open_it in (writer, reader):
            with pytest.raises(StoreForeign):
                open_it(path)


def test_a_reader_does_not_make_or_migrate_a_database(tmp_path):
    path = tmp_path / "runs.db"
    with pytest.raises(StoreMissing):
        reader(path)
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreOlder, match="is an empty database"):
        reader(path)


def test_a_folder_in_the_database_s_place_is_called_one(tmp_path):
    (tmp_path / "runs.db").mkdir()
    for open_it in (writer, reader):
        with pytest.raises(StoreForeign, match="is a folder") as refused:
            open_it(tmp_path / "runs.db")
        assert "Rename that folder" in refused.value.hint


def test_a_full_disk_is_said_when_a_database_cannot_even_be_opened(tmp_path):
    """SQLite has no room for its index of the log, and calls that a disk I/O error."""
    with small_disk(tmp_path / "small", "2m") as disk:
        with contextlib.closing(writer(disk / "runs.db")) as conn:
            queue.add(conn, NewRun(name="one"))
        fill_up(disk / "filler")
        for open_it in (reader, writer):
            with pytest.raises(StoreFull, match="no room left") as refused:
                open_it(disk / "runs.db")
            assert f"Empty {disk}/.finetop/trash or free" in refused.value.hint


def test_a_reader_cannot_write(tmp_path):
    writer(tmp_path / "runs.db").close()
    with pytest.raises(sqlite3.OperationalError):
        reader(tmp_path / "runs.db").execute("DELETE FROM runs")


def test_a_folder_with_odd_characters_can_hold_the_workspace(tmp_path):
    path = tmp_path / "a b?c#d%20 微调" / "runs.db"
    queue.add(writer(path), NewRun(name="微调"))
    assert queries.run(reader(path), 1).name == "微调"


HOLD_THE_LOCK = """
import sqlite3, sys, time
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
conn.execute("COMMIT")
"""


def test_a_writer_waits_for_another_and_a_reader_does_not(tmp_path):
    path = tmp_path / "runs.db"
    conn, impatient = writer(path), writer(path, busy_seconds=0.05)
    holder = storekit.process(HOLD_THE_LOCK, path, 1.0)
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(StoreBusy):
        queue.add(impatient, NewRun())
    begun = time.monotonic()
    assert queries.list_runs(reader(path)) == ()
    assert time.monotonic() - begun < 0.5
    assert queue.add(conn, NewRun()) == 1
    storekit.outputs([holder])


def test_a_writer_that_is_asked_to_tells_once_that_it_waits(tmp_path):
    path = tmp_path / "runs.db"
    holder, told = writer(path), []

    def tell(seconds: float) -> None:
        told.append(seconds)
        holder.execute("ROLLBACK")

    conn = writer(path, on_wait=tell)
    assert queue.add(conn, NewRun()) == 1 and told == []
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        queue.add(writer(path, busy_seconds=0.05, on_wait=tell), NewRun())
    assert queue.add(conn, NewRun()) == 2 and told == [transactions.BUSY_SECONDS]
    again = storekit.process(HOLD_THE_LOCK, path, 1.5)
    assert again.stdout.readline() == "locked\n"
    assert queue.add(conn, NewRun()) == 3 and len(told) == 1
    storekit.outputs([again])


def test_a_writer_tells_that_it_cannot_even_be_opened_where_a_lock_shuts_readers_out(tmp_path):
    path, told = tmp_path / "runs.db", []
    holder = writer(path)
    assert holder.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    holder.execute("BEGIN EXCLUSIVE")
    conn = writer(path, on_wait=lambda seconds: told.append(holder.execute("ROLLBACK")))
    assert len(told) == 1 and queue.add(conn, NewRun()) == 1


def test_an_exception_rolls_the_whole_transaction_back(tmp_path):
    conn = writer(tmp_path / "runs.db")
    with pytest.raises(RuntimeError), write(conn):
        queue.add(conn, NewRun())
        raise RuntimeError
    assert queries.list_runs(conn) == () and not conn.in_transaction


def test_changes_tells_when_somebody_else_wrote(tmp_path):
    conn = writer(tmp_path / "runs.db")
    changes = Changes(reader(tmp_path / "runs.db"))
    assert changes.changed() and not changes.changed()
    queue.add(conn, NewRun())
    assert changes.changed() and not changes.changed()


def test_the_lists_and_wishes_of_front_ends_import_nothing_heavy(tmp_path):
    path = tmp_path / "runs.db"
    writer(path).close()
    code = (
        "import sys; from pathlib import Path\n"
        "from engine.store import chart_queries, connect, journal_import, queue\n"
        "from engine.store import queries as reads, run_records as records\n"
        "conn = connect.writer(Path(sys.argv[1])); queue.add(conn, records.NewRun()); queue.request(conn, 1, 'stop')\n"
        "reads.list_runs(connect.reader(Path(sys.argv[1])))\n"
        "print(sorted({'sqlite_utils', 'pandas', 'numpy', 'torch', 'textual', 'rich'} & sys.modules.keys()))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, path], cwd=storekit.REPOSITORY, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_views_are_readable_with_sqlite_utils(tmp_path):
    import sqlite_utils

    conn = writer(tmp_path / "runs.db")
    queue.add(conn, NewRun(name="one", model="Qwen/Qwen3-8B"))
    database = sqlite_utils.Database(tmp_path / "runs.db")
    (row,) = database.query("select * from run_summary")
    assert (row["id"], row["name"], row["state"], row["model"]) == (1, "one", "queued", "Qwen/Qwen3-8B")
    assert list(database.query("select place, id from queue")) == [{"place": 1, "id": 1}]
    assert set(database.view_names()) == {"metrics", "run_metrics", "run_summary", "queue"}
