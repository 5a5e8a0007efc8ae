"""The journal: what was logged is there, whatever happens to the process, the disk or the file."""

import ast
import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.runs import journal
from engine.runs.journal import Journal, effective, read
from tests.engine.mounts import small_disk

ROOT = Path(__file__).resolve().parents[3]


def steps(events):
    return [event["step"] for event in events if event["kind"] == "metric"]


def test_every_event_is_one_line_with_time_and_kind(tmp_path):
    log = Journal(tmp_path)
    log.write("event", event="note", message="two\nlines 与 \u2028 中文")
    log.metric(1, {"train/loss": 0.5})
    log.close()
    raw = (tmp_path / journal.NAME).read_bytes()
    assert raw.count(b"\n") == 2 and raw.endswith(b"\n")
    first, second = (json.loads(line) for line in raw.splitlines())
    assert first["kind"] == "event" and abs(first["t"] - time.time()) < 60
    assert first["message"] == "two\nlines 与 \u2028 中文"
    assert second["step"] == 1 and second["values"] == {"train/loss": 0.5}
    assert stat.S_IMODE((tmp_path / journal.NAME).stat().st_mode) == 0o600


def test_numbers_come_back_to_the_last_bit(tmp_path):
    values = {str(i): random.Random(i).lognormvariate(0, 30) for i in range(50)}
    Journal(tmp_path).metric(1, values)
    assert read(tmp_path)[0][0]["values"] == values


def test_one_write_for_each_event(tmp_path, monkeypatch):
    log, written = Journal(tmp_path), []
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(data) or len(data))
    log.metric(1, {"train/loss": 1.0})
    log.write("beat", next=5, doing="training")
    assert len(written) == 2


def test_what_is_no_number_is_null_and_named(tmp_path):
    log = Journal(tmp_path)
    log.metric(3, {"train/loss": float("nan"), "train/lr": 0.1, "train/grad_norm": float("-inf")})
    log.write("eval", step=3, values={"eval/loss": float("inf"), "eval/exact_match": 0.5})
    metric, evaluation = read(tmp_path)[0]
    assert metric["values"] == {"train/loss": None, "train/lr": 0.1, "train/grad_norm": None}
    assert metric["nonfinite"] == {"train/loss": "nan", "train/grad_norm": "-inf"}
    assert evaluation["values"] == {"eval/loss": None, "eval/exact_match": 0.5}
    assert evaluation["nonfinite"] == {"eval/loss": "inf"}
    for line in (tmp_path / journal.NAME).read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_half_a_character_does_not_stop_the_journal(tmp_path):
    Journal(tmp_path).write("sample", step=1, text="cut \ud83d off")
    assert read(tmp_path)[0][0]["text"] == "cut ? off"


def test_a_torn_last_line_does_not_exist_yet(tmp_path):
    log = Journal(tmp_path)
    log.metric(1, {})
    with open(tmp_path / journal.NAME, "ab") as file:
        file.write(b'{"t":1,"kind":"metric","st')
    events, offset = read(tmp_path)
    assert steps(events) == [1]
    with open(tmp_path / journal.NAME, "ab") as file:
        file.write(b'ep":2,"values":{}}\n')
    assert steps(read(tmp_path, offset)[0]) == [2]


def test_a_line_torn_by_a_crash_costs_only_itself(tmp_path):
    Journal(tmp_path).metric(1, {})
    with open(tmp_path / journal.NAME, "ab") as file:
        file.write(b'{"t":1,"kind":"metric","st')
    Journal(tmp_path).metric(2, {})
    assert steps(read(tmp_path)[0]) == [1, 2]


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * 100, b"\xff\xfe", b"[1,2]", b"null", b"{", b"[" * 100_000, b'{"no": "kind"}', b'{"kind": 3}', b"", b"\r"],
)
def test_garbage_in_the_middle_is_passed_over(tmp_path, garbage):
    log = Journal(tmp_path)
    log.metric(1, {})
    with open(tmp_path / journal.NAME, "ab") as file:
        file.write(garbage + b"\n")
    log.metric(2, {})
    assert steps(read(tmp_path)[0]) == [1, 2]


def test_readers_go_on_from_their_own_offset(tmp_path):
    log = Journal(tmp_path)
    seen: dict[str, list[int]] = {"often": [], "rarely": []}
    offsets = dict.fromkeys(seen, 0)
    for step in range(1, 31):
        log.metric(step, {})
        for name, every in (("often", 1), ("rarely", 10)):
            if step % every == 0:
                events, offsets[name] = read(tmp_path, offsets[name])
                seen[name] += steps(events)
    assert seen["often"] == seen["rarely"] == list(range(1, 31))
    assert read(tmp_path, offsets["often"]) == ([], offsets["often"])


def test_no_journal_yet_is_an_empty_one(tmp_path):
    assert read(tmp_path) == ([], 0)


def test_a_resume_takes_back_what_lies_beyond_its_step(tmp_path):
    log = Journal(tmp_path)
    log.write("resume", from_step=-1)
    for step in range(1, 6):
        log.metric(step, {"train/loss": 1.0})
    log.write("eval", step=5, values={})
    log.write("checkpoint", step=4)
    log.write("state", state="stopped", step=5)
    log.write("resume", from_step=3)
    for step in range(4, 7):
        log.metric(step, {"train/loss": 2.0})
    log.write("resume", from_step=5)
    log.metric(6, {"train/loss": 3.0})
    counted = list(effective(read(tmp_path)[0]))
    assert steps(counted) == [1, 2, 3, 4, 5, 6]
    assert [e["values"]["train/loss"] for e in counted if e["kind"] == "metric"] == [1, 1, 1, 2, 2, 3]
    assert not [e for e in counted if e["kind"] in ("eval", "checkpoint")]
    assert [e["state"] for e in counted if e["kind"] == "state"] == ["stopped"]


def test_a_start_from_the_beginning_takes_back_everything(tmp_path):
    log = Journal(tmp_path)
    for _ in range(2):
        log.write("resume", from_step=-1)
        log.write("eval", step=0, values={})
        log.metric(1, {})
    counted = list(effective(read(tmp_path)[0]))
    assert steps(counted) == [1] and len([e for e in counted if e["kind"] == "eval"]) == 1


def test_a_full_disk_makes_it_wait_and_loses_nothing(tmp_path, monkeypatch):
    log, real, failures = Journal(tmp_path), os.write, iter([errno.ENOSPC, errno.EDQUOT, None, errno.ENOSPC, None])

    def full_now_and_then(fd, data):
        number = next(failures, None)
        if number:
            raise OSError(number, os.strerror(number))
        return real(fd, data[:7] if len(data) > 20 else data)  # what still fits is written in part

    monkeypatch.setattr(journal, "_DISK_FULL_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(os, "write", full_now_and_then)
    for step in range(1, 4):
        log.metric(step, {"train/loss": 0.5})
    assert steps(read(tmp_path)[0]) == [1, 2, 3]


def test_a_broken_disk_is_not_waited_for(tmp_path, monkeypatch):
    log = Journal(tmp_path)

    def broken(fd, data):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(OSError, match="Input/output"):
        log.metric(1, {})


def test_a_really_full_disk_makes_it_wait_and_loses_nothing(tmp_path, monkeypatch):
    with small_disk(tmp_path / "small", "64k") as small:
        monkeypatch.setattr(journal, "_DISK_FULL_RETRY_SECONDS", 0.01)
        log = Journal(small)
        filler = small / "filler"
        filler.write_bytes(b"x" * 40_000)
        writer = threading.Thread(target=lambda: [log.metric(step, {"a": step / 7}) for step in range(1, 401)])
        writer.start()
        deadline = time.monotonic() + 20
        while os.statvfs(small).f_bavail and time.monotonic() < deadline:
            time.sleep(0.01)
        assert writer.is_alive(), "the disk is not full"
        filler.unlink()
        writer.join(20)
        assert steps(read(small)[0]) == list(range(1, 401))


_LOGS_AND_TELLS = """
import sys
from pathlib import Path
from engine.runs.journal import Journal
log = Journal(Path(sys.argv[1]))
step = int(sys.argv[2])
while True:
    step += 1
    log.metric(step, {"train/loss": 1 / step})
    sys.stdout.write(f"{step}\\n")
    sys.stdout.flush()
"""


def test_sigkill_loses_nothing_logged(tmp_path):
    """Killed at a random moment, five times over: each step the child said it had logged is there, once."""
    said = 0
    for seed in range(5):
        with open(tmp_path / "said", "wb") as out:
            child = subprocess.Popen([sys.executable, "-c", _LOGS_AND_TELLS, str(tmp_path), str(said)], stdout=out)
            deadline = time.monotonic() + 20
            while not (tmp_path / "said").stat().st_size and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(random.Random(seed).uniform(0, 0.05))
            child.send_signal(signal.SIGKILL)
            child.wait()
        said = int((tmp_path / "said").read_text().split("\n")[-2])
        found = steps(read(tmp_path)[0])
        assert found[:said] == list(range(1, said + 1))
        assert len(found) - said in (0, 1), "at most the step that was logged but not yet said"
        said = len(found)


def test_the_page_names_every_kind_event_and_field_the_worker_writes():
    """docs/journal.md against the calls in engine/worker: kind, `event=`, and the other fields by keyword."""
    page = (ROOT / "docs" / "journal.md").read_text("utf-8")
    sections = {part.split("`")[1]: part for part in page.split("\n### ")[1:]}
    calls = [
        node
        for path in sorted((ROOT / "engine" / "worker").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "write"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]
    kinds = {call.args[0].value for call in calls}
    assert {"state", "plan", "model", "resume", "eval", "sample", "checkpoint", "beat"} <= kinds
    assert kinds | {"metric"} == sections.keys()
    for call in calls:
        section = sections[call.args[0].value]
        for keyword in call.keywords:
            assert keyword.arg is None or f"`{keyword.arg}`" in section, (call.args[0].value, keyword.arg)
            if keyword.arg == "event":
                assert f"`{keyword.value.value}`" in section


def test_a_state_says_where_between_the_lines_of_the_log_it_belongs(tmp_path):
    log = Journal(tmp_path)
    log.write("state", state="starting")
    (tmp_path / "log.txt").write_text("a warning\n")
    log.write("state", state="failed", reason="so")
    log.write("beat", next=5)
    assert [event.get("log_bytes") for event in read(tmp_path)[0]] == [None, 10, None]
