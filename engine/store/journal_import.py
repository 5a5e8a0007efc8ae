"""journal.jsonl -> rows: incremental, idempotent, and all or nothing.

The byte offset up to which a journal has been read is committed together with the rows it brought. Whoever is killed
in the middle leaves the old offset and none of the rows; two importers at once find each other's offset and read on
from there. A last line without its newline does not exist yet. A journal that became shorter than the offset, or
begins otherwise than it did, has been replaced: the run's rows are dropped and it is read from its beginning.

What each event becomes lies in `journal_events`.
"""

import json
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Any

from engine.base.messages import msg
from engine.runs.journal import NAME as JOURNAL
from engine.store import series
from engine.store.journal_events import JournalImport
from engine.store.run_records import Imported
from engine.store.store_errors import StoreError
from engine.store.transactions import write

CHUNK_BYTES = 1 << 20
"""Read in one transaction: about 6,000 steps, which hold the write lock for 0.1 s."""
HEAD_BYTES = 256
"""A journal is recognised by its first bytes, which hold the time of its first event."""


def import_journal(conn: sqlite3.Connection, run_id: int, folder: Path, whole_history: bool = False) -> Imported:
    """Take in what `folder`'s journal has gained. `whole_history` believes its states, whatever the run's is."""
    events = points = damaged = 0
    restarted = False
    while True:
        offset, head = _position(conn, run_id)
        try:
            with open(folder / JOURNAL, "rb") as file:
                lines, new_offset, new_head, replaced = _read(file, offset, head)
        except FileNotFoundError:
            return Imported(events, offset, points, damaged, restarted)
        if not lines and not replaced:
            return Imported(events, offset, points, damaged, restarted)
        parsed, bad = _parse(lines)
        with write(conn):
            if _position(conn, run_id) != (offset, head):
                continue  # another importer was quicker: look again
            if replaced:
                _forget(conn, run_id)
                restarted = True
            chunk = JournalImport(conn, run_id, whole_history)
            points += chunk.take(parsed)
            bad += chunk.unusable
            if bad:
                conn.execute(
                    "INSERT INTO events(run_id, time, source, kind, message) VALUES (?, ?, 'journal', 'damaged', ?)",
                    (run_id, time.time(), f"{bad} lines of the journal could not be read"),
                )
            conn.execute(
                "UPDATE runs SET journal_offset = ?, journal_head = ? WHERE id = ?", (new_offset, new_head, run_id)
            )
        events += len(parsed)
        damaged += bad


def _position(conn: sqlite3.Connection, run_id: int) -> tuple[int, int]:
    row = conn.execute("SELECT journal_offset, journal_head FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise StoreError(
            msg("no run {run_id} in the store", run_id=run_id), "`finetop rebuild` reads the run folders anew."
        )
    return row


def _read(file: Any, offset: int, head: int) -> tuple[list[bytes], int, int, bool]:
    """The next whole lines, the offset after them, the head's checksum there, and whether the file is another one."""
    start = file.read(HEAD_BYTES)
    head_length = min(HEAD_BYTES, offset)
    replaced = offset > 0 and (len(start) < head_length or zlib.crc32(start[:head_length]) != head)
    if not replaced and offset:
        file.seek(offset - 1)
        replaced = file.read(1) != b"\n"  # shorter than it was, or cut by a crash and grown beyond since
    if replaced:
        offset = 0
    file.seek(offset)
    data = file.read(CHUNK_BYTES)
    end = data.rfind(b"\n") + 1
    while not end and len(data) % CHUNK_BYTES == 0 and (more := file.read(CHUNK_BYTES)):
        data += more  # one line longer than a chunk
        end = data.rfind(b"\n") + 1
    new_offset = offset + end
    checksum = zlib.crc32(start[: min(HEAD_BYTES, new_offset)]) if new_offset else 0
    return data[:end].split(b"\n")[:-1] if end else [], new_offset, checksum, replaced


def _parse(lines: list[bytes]) -> tuple[list[dict[str, Any]], int]:
    """The events, and how many lines were none. An empty line is what a torn one was ended with, not damage."""
    events, bad = [], 0
    for line in lines:
        try:
            event = json.loads(line)
            if b"\\ud" in line or b"\\uD" in line:  # half of a surrogate pair is JSON, and no text for a database
                event = json.loads(json.dumps(event, ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            bad += bool(line.strip())
            continue
        if isinstance(event, dict) and isinstance(event.get("kind"), str):
            events.append(event)
        else:
            bad += 1
    return events, bad


def _forget(conn: sqlite3.Connection, run_id: int) -> None:
    """Drop what earlier imports brought. Pins are the user's, and stay as rows of removed checkpoints."""
    series.drop_run(conn, run_id)
    conn.execute("DELETE FROM events WHERE run_id = ? AND source = 'journal'", (run_id,))
    conn.execute("DELETE FROM evaluations WHERE run_id = ?", (run_id,))
    conn.execute("DELETE FROM samples WHERE run_id = ?", (run_id,))
    conn.execute("DELETE FROM checkpoints WHERE run_id = ? AND NOT pinned", (run_id,))
    conn.execute("UPDATE checkpoints SET removed = ? WHERE run_id = ?", (time.time(), run_id))
    conn.execute("UPDATE runs SET step = 0, epoch = NULL WHERE id = ?", (run_id,))
