"""Sentences keep template and values on their way through journal and store, and render to the same text."""

import json

import pytest

from engine.base.errors import ConfigError, EngineError
from engine.base.messages import Message, msg, restored
from engine.runs.journal import Journal, read
from engine.store import queries, queue, run_lifecycle
from engine.store.connect import reader, writer
from engine.store.journal_import import import_journal
from engine.store.rebuild import rebuild
from engine.store.run_records import NewRun, RunState
from tests.engine.store.storekit import line, write

REASON = msg("{path} is gone: {cause}", path="/data/a.jsonl", cause=msg("{n:,} rows were read", n=1200))
TEXT = "/data/a.jsonl is gone: 1,200 rows were read"


def run_with(conn, tmp_path, reason):
    """A run that failed for a reason, as its worker's journal says."""
    run_id = queue.add(conn, NewRun())
    run_lifecycle.claim(conn, run_id)
    folder = tmp_path / "runs" / str(run_id)
    folder.mkdir(parents=True)
    journal = Journal(folder)
    journal.write("state", state="failed", reason=reason, hint=msg("See {path}.", path="/data"), cause="input")
    journal.write("event", event="moved", message=reason)
    journal.close()
    import_journal(conn, run_id, folder)
    return run_id, folder


def check(text):
    assert text == TEXT and isinstance(text, Message)
    assert text.template == "{path} is gone: {cause}"
    assert text.values["path"] == "/data/a.jsonl" and text.values["cause"].values == {"n": 1200}


def test_the_reason_of_a_failed_run_has_its_template_and_values_in_the_store(tmp_path):
    conn = writer(tmp_path / "runs.db")
    run_id, folder = run_with(conn, tmp_path, EngineError(REASON).message)
    for run in (queries.run(conn, run_id), *queries.list_runs(conn, "reason:gone")):
        assert run.state is RunState.FAILED
        check(run.reason)
    failed, moved = queries.events(conn, run_id)
    check(failed.detail["reason"])
    assert failed.detail["hint"].template == "See {path}." and "messages" not in failed.detail
    check(moved.message)
    check(read(folder)[0][0]["reason"])
    first = json.loads((folder / "journal.jsonl").read_text("utf-8").splitlines()[0])
    assert first["reason"] == TEXT, "who reads the file itself finds the English text"


def test_reasons_to_wait_and_events_of_the_queue_keep_theirs(tmp_path):
    conn = writer(tmp_path / "runs.db")
    run_id = queue.add(conn, NewRun())
    queue.set_waiting(conn, {run_id: ("busy", REASON)})
    check(queries.run(conn, run_id).wait_reason)
    queue.note(conn, run_id, "retry", REASON)
    check(queries.events(conn, run_id)[0].message)
    run_lifecycle.claim(conn, run_id)
    run_lifecycle.finish(conn, run_id, RunState.FAILED, REASON)
    check(queries.run(conn, run_id).reason)


def test_a_template_of_another_text_is_disregarded(tmp_path):
    conn = writer(tmp_path / "runs.db")
    run_id, folder = run_with(conn, tmp_path, REASON)
    run_lifecycle.explain(conn, run_id, "killed")
    assert queries.run(conn, run_id).reason == "killed"
    assert not isinstance(queries.run(conn, run_id).reason, Message)
    nonsense = [1, {"template": 1}, {"template": "{0}", "values": {}}, {"template": "{a.b}", "values": {"a": 1}}, None]
    for record in nonsense:
        write(folder, line("event", event="odd", message="plain", messages={"message": record}))
    write(folder, line("event", event="odd", message="plain", messages="?"))
    import_journal(conn, run_id, folder)
    assert [event.message for event in queries.events(conn, run_id)][-6:] == ["plain"] * 6


def test_a_rebuilt_store_has_them_too(tmp_path):
    conn = writer(tmp_path / "runs.db")
    run_id, folder = run_with(conn, tmp_path, REASON)
    (folder / "config.json").write_text("{}")
    queue.note(conn, run_id, "ended", REASON)
    conn.close()
    rebuild(tmp_path)
    conn = reader(tmp_path / "runs.db")
    check(queries.run(conn, run_id).reason)
    check(queries.events(conn, run_id)[-1].message)


def test_an_error_keeps_its_messages_but_where_its_text_cannot_be_encoded():
    error = EngineError(REASON, msg("Try {number}.", number=2))
    assert isinstance(error.message, Message) and isinstance(error.hint, Message)
    assert ConfigError([REASON]).problems[0] is REASON
    assert EngineError(msg("{name}", name="\udcfd")).message == "\\xfd"
    assert json.loads(json.dumps(REASON.record()))["values"]["cause"]["values"] == {"n": 1200}


@pytest.mark.parametrize(
    "template", ["{n:>999999999}", "{n:{n}}", "{n.__class__}", "{n[0]}", "{0}", "{}", "{n", "{n:>1234}"]
)
def test_a_strangers_template_renders_nothing_but_its_values(template):
    text = "as it was written"
    assert type(restored(text, {"template": template, "values": {"n": 1}})) is str


def test_a_template_of_ours_comes_back_with_its_formats():
    for message in (msg("{n:,} of {share:.1%} {name!r}", n=1234, share=0.5, name="a"), REASON):
        assert type(restored(str(message), message.record())) is Message
