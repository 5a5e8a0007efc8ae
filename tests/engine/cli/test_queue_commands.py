"""The commands of the queue, as a person and as a script meet them."""

import contextlib
import csv
import io
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.base.workspace import Workspace
from engine.cli.commands import logs
from engine.cli.main import build_parser, main
from engine.daemon import daemon_client
from engine.metrics.names import MAIN_SCORES
from engine.metrics.score import METRICS
from engine.present.text import cells
from engine.store import queries, queue, run_lifecycle
from engine.store.connect import reader, writer
from engine.store.journal_import import import_journal
from engine.store.run_records import RunState
from tests.engine.store.storekit import line, metric, write

FINETOP = str(Path(sys.executable).with_name("finetop"))
PATIENCE = 90
COMMANDS = ("add", "sweep", "ls", "history", "show", "logs", "checkpoints", "stop", "kill", "resume", "fork", "hold")
COMMANDS += ("edit", "release", "move", "rm", "restore", "trash", "doctor", "rebuild")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    monkeypatch.setenv("FINETOP_WORKSPACE", str(tmp_path / "工作区"))
    (tmp_path / "意图.csv").write_text("text,label\n你好,问候\n再见,告别\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path / "工作区")


@pytest.fixture
def finetop(workspace, capsys):
    """A command, its exit code checked: what it printed on stdout and on stderr."""

    def run(*words: object, code: int = 0) -> tuple[str, str]:
        found = main(list(map(str, words)))
        out, err = capsys.readouterr()
        assert found == code, out + err
        assert "Traceback" not in err
        return out, err

    return run


def add(finetop, *words: object) -> int:
    return int(finetop("add", "--data-file", "意图.csv", *words)[0])


def states(workspace: Workspace) -> dict[int, str]:
    runs = queries.list_runs(reader(workspace.database))
    return {run.id: "held" if run.held else run.state.value for run in runs}


def work(workspace: Workspace, run_id: int, *lines: bytes) -> None:
    """The run has been claimed and its worker has written this."""
    conn = writer(workspace.database)
    run_lifecycle.claim(conn, run_id)
    folder = workspace.runs / str(run_id)
    import_journal(conn, run_id, write(folder, line("state", state="starting", pid=1), *lines))
    conn.close()


# into the queue


def test_add_prints_the_id_and_nothing_else(finetop, workspace):
    out, err = finetop("add", "--data-file", "意图.csv", "--preset", "quick", "--name", "第一个")
    assert (out, err) == ("1\n", "")
    out, _ = finetop("add", "--data-file", "意图.csv", "--after", "1", "--hold", "--json")
    assert json.loads(out) == {"run": 2, "folder": str(workspace.runs / "2")}
    assert states(workspace) == {1: "queued", 2: "held"}
    assert queries.dependencies(reader(workspace.database)) == {2: ((1, RunState.QUEUED),)}


def test_a_mistake_queues_nothing_and_makes_nothing(finetop, workspace):
    assert (
        "did you mean 'optim.learning_rate'"
        in finetop("add", "--data-file", "意图.csv", "--set", "optim.lr=1", code=2)[1]
    )
    assert "does not exist" in finetop("add", "--data-file", "gone.csv", code=2)[1]
    assert "'x' is no run" in finetop("add", "--data-file", "意图.csv", "--after", "x", code=2)[1]
    assert "no data" in finetop("add", "--val-file", "意图.csv", code=2)[1]
    assert workspace.run_ids() == []


@pytest.mark.parametrize("words", [("add", "--data-file", "意图.csv"), ("stop", "1")])
def test_a_command_that_waits_for_a_locked_database_says_so_once_and_then_does_it(finetop, workspace, words):
    add(finetop)
    holder = sqlite3.connect(workspace.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with subprocess.Popen([FINETOP, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        try:
            said = command.stderr.readline()
            holder.execute("ROLLBACK")
            out, rest = command.communicate(timeout=PATIENCE)
        finally:
            command.kill()
    assert said == "finetop: runs.db is locked by another program; waiting for it, up to 30s\n"
    assert (command.returncode, rest) == (0, "")
    assert out == ("2\n" if words[0] == "add" else "run 1: taken off the queue\n")
    assert states(workspace)[1] == ("queued" if words[0] == "add" else "stopped")


def test_names_that_are_no_utf8_are_shown_escaped_and_used_as_they_are(finetop, workspace, tmp_path):
    folder, data = tmp_path / os.fsdecode(b"\xb9\xa4"), tmp_path / os.fsdecode(b"\xca\xfd.csv")
    shutil.copy(tmp_path / "意图.csv", data)
    assert finetop("--workspace", folder, "add", "--data-file", data)[0] == "1\n"
    assert r"\xca\xfd" in finetop("--workspace", folder, "ls")[0]
    assert r"\xca\xfd" in finetop("--workspace", folder, "history", "--all", "--filter", os.fsdecode(b"\xca"))[0]
    assert finetop("--workspace", folder, "rebuild")[0]


def test_in_a_c_locale_a_chinese_file_name_names_the_run_as_it_is(workspace, tmp_path):
    c_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    words = [sys.executable, "-m", "tui", "add", "--data-file", "意图.csv"]
    repository = str(Path(__file__).resolve().parents[3])
    subprocess.run(words, env=os.environ | c_locale | {"PYTHONPATH": repository}, check=True, capture_output=True)
    with contextlib.closing(reader(workspace.database)) as conn:
        assert "意图" in queries.run(conn, 1).name


@pytest.mark.parametrize("digits", ["9223372036854775808", "9" * 23, "9" * 5000])
def test_numbers_that_no_database_holds_are_told_in_words(finetop, digits):
    add(finetop)
    for words in (
        f"add --data-file 意图.csv --after {digits}", f"show {digits}", f"rm 1-{digits}", f"restore {digits}",
        f"logs 1 -n {digits}", f"ls --recent {digits}", f"checkpoints 1 --pin {digits}", f"export 1@{digits} out",
        f"add --like 1 --fix {digits}", f"eval 1@best --shots {digits}", f"edit {digits} --name x",
    ):  # fmt: skip
        out, err = finetop(*words.split(), code=2)
        assert not out and err.startswith("finetop: ") and "Error" not in err, words
    assert json.loads(finetop("history", "--filter", f"id:1-{digits}", "--json")[0]) == []  # the one run waits


def test_a_sweep_is_one_group_named_for_what_varies(finetop, workspace):
    out, err = finetop("sweep", "--data-file", "意图.csv", "--grid", "learning_rate=1e-4,5e-5", "--grid", "r=8,16")
    assert out.splitlines()[0] == "1  lr=1e-4 r=8"
    assert "4 runs queued as 'sweep-1'" in err
    dry = ("sweep", "--data-file", "意图.csv", "--grid", "r=4..64:log", "--random", "3", "--seed", "5", "--dry-run")
    first, again = finetop(*dry, "--json")[0], finetop(*dry, "--json")[0]
    assert first == again and json.loads(first)["group"] == "sweep-2"
    assert [run["run"] for run in json.loads(first)["runs"]] == [None] * 3
    finetop("sweep", "--data-file", "意图.csv", "--grid", "r=1,2", "--group", "秩", "--hold", "--after", "1-2")
    runs = queries.list_runs(reader(workspace.database), "group:秩")
    assert {(run.name, run.held) for run in runs} == {("r=1", True), ("r=2", True)}


def test_an_empty_file_and_a_name_that_no_model_can_have_are_not_queued(finetop, workspace, tmp_path):
    for content in ("", " \n\n"):
        (tmp_path / "empty.jsonl").write_text(content)
        assert "empty.jsonl: empty" in finetop("add", "--data-file", "empty.jsonl", code=2)[1]
    for name in ("没有/这个", "org/a b", "-x/y"):
        assert (
            "no model of the hub can have that name"
            in finetop("add", "--data-file", "意图.csv", f"--model={name}", code=2)[1]
        )
    add(finetop, "--model", "Qwen/Qwen2.5-0.5B_x", "--data-file", "empty.jsonl")
    assert states(workspace) == {1: "queued"}


def test_a_setting_goes_by_the_same_short_names_in_set_as_in_a_sweep(finetop, workspace):
    add(finetop, "--set", "lr=3e-4", "--set", "r=4")
    told = json.loads(finetop("show", 1, "--json")[0])["settings"]
    assert told["optim.learning_rate"] == {"value": 3e-4, "origin": "--set"} and told["lora.r"]["value"] == 4
    assert "nonsense" in finetop("add", "--data-file", "意图.csv", "--set", "nonsense=1", code=2)[1]


def test_a_sweep_tells_every_mistake_at_once(finetop):
    words = ("sweep", "--data-file", "意图.csv", "--grid", "learning_rat=1", "--grid", "lora.r=0,8", "--epochs", "-1")
    _, err = finetop(*words, code=2)
    for part in ("'learning_rat'", "lora.r is 0", "train.epochs is -1"):
        assert part in err
    assert "nothing varies" in finetop("sweep", "--data-file", "意图.csv", code=2)[1]
    assert "given twice" in finetop("sweep", "--grid", "r=1", "--grid", "lora.r=2", code=2)[1]


# looking


def test_ls_says_what_runs_what_waits_and_why(finetop, workspace, monkeypatch):
    for name in ("第一个", "second", "third", "第四个"):
        add(finetop, "--name", name)
    plan = line("plan", total_steps=200)
    work(workspace, 1, plan, *(metric(step, loss=1.25, step_s=0.5) for step in range(1, 51)))
    work(workspace, 2, plan, metric(1, loss=0.5), line("state", state="failed", reason="the loss became NaN"))
    finetop("hold", 4)
    why = "needs ~21.4 GiB, GPU 0 has 9.8 free: used by pid 2217 of kim"
    queue.set_waiting(writer(workspace.database), {3: ("memory", why)})
    out, err = finetop("ls")
    running, waiting, finished = out.split("\n\n")
    assert "第一个" in running and "50/200" in running and "██········" in running and "1m 15s" in running
    assert "used by pid 2217 of kim" in waiting and "held by you" in waiting
    assert "the loss became NaN" in finished
    assert "No daemon is running" in err
    for width in (80, 60, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert all(cells(printed) <= width for printed in finetop("ls")[0].splitlines())
    found = json.loads(finetop("ls", "--json")[0])
    assert [run["id"] for run in found["active"]] == [1] and found["active"][0]["seconds_left"] == 75.0
    assert [(run["place"], run["id"]) for run in found["queue"]] == [(1, 3), (2, 4)]


def test_names_and_reasons_are_shown_and_never_obeyed(finetop, workspace):
    add(finetop, "--name", "\x1b[31mred\x07")
    work(workspace, 1, line("state", state="failed", reason="\x1b]0;title\x07", hint="\x1b[2J"))
    for words in (("ls",), ("history",), ("show", "1"), ("logs", "1", "--events")):
        assert "\x1b" not in finetop(*words)[0] and "\x07" not in finetop(*words)[0]


def test_history_filters_sorts_and_speaks_to_other_programs(finetop, workspace):
    for name in ("a|b", "b", "c"):
        add(finetop, "--name", name)
    for run_id, loss in ((1, 0.5), (2, 0.25)):
        work(
            workspace,
            run_id,
            metric(1, loss=loss),
            line("eval", step=1, values={"eval/loss": loss}),
            line("state", state="done", step=1),
        )
    rows = list(csv.DictReader(io.StringIO(finetop("history", "--csv", "--sort", "eval")[0])))
    assert [(row["id"], row["best_eval"]) for row in rows] == [("2", "0.25"), ("1", "0.5")]
    assert [run["id"] for run in json.loads(finetop("history", "--json", "--filter", "name:b id:2")[0])] == [2]
    assert len(json.loads(finetop("history", "--json", "--all")[0])) == 3
    assert len(json.loads(finetop("history", "--json", "--limit", 1)[0])) == 1
    assert "| a\\|b |  | done |" in finetop("history", "--markdown")[0]
    assert finetop("history", "--filter", "state:failed") == ("", "no run matches\n")
    assert finetop("history", "--trash") == ("", "the trash is empty\n")
    assert "--sort cannot be 'los'; did you mean 'loss'?" in finetop("history", "--sort", "los", code=2)[1]


def test_history_keeps_results_in_sight_on_a_narrow_terminal(finetop, workspace, monkeypatch):
    add(finetop, "--name", "客服对话微调一号", "--set", "run.tags=甲")
    told = line("eval", step=1234, values={"eval/loss": 0.0125})
    work(workspace, 1, line("plan", total_steps=1234), metric(1234, loss=0.5), told, line("state", state="done"))
    monkeypatch.setenv("COLUMNS", "80")
    title, row = finetop("history")[0].splitlines()
    assert "客服对话微调一号" in row and "0.0125@1234" in row and row.endswith("ago") and title.endswith("ended")
    assert cells(row) <= 80
    finished = finetop("ls")[0].splitlines()[-1]
    assert (
        "客服对话微调一号" in finished and "0.0125" in finished and finished.endswith("ago") and cells(finished) <= 80
    )


def evaluated(step: int, loss: float, **scores: float) -> bytes:
    return line(
        "eval", step=step, values={"eval/loss": loss} | {f"eval/{name}": score for name, score in scores.items()}
    )


def test_lists_show_the_lowest_eval_loss_and_the_main_score(finetop, workspace, monkeypatch):
    for name in ("意图分类首次尝试", "second", "third"):
        add(finetop, "--name", name)
    course = ((5, 0.5, 0.25), (10, 0.375, 0.75), (15, 0.625, 0.5))
    evaluations = [evaluated(step, loss, accuracy=share, macro_f1=0.9) for step, loss, share in course]
    work(workspace, 1, metric(15, loss=0.125), *evaluations, line("state", state="done", step=15))
    work(workspace, 2, metric(3, loss=2.0), evaluated(2, 1.5, rouge_l=0.5, exact_match=1 / 3), evaluated(3, 1.75))
    running, _, finished = (block.splitlines() for block in finetop("ls")[0].split("\n\n"))
    assert "eval loss  exact_match" in running[1] and " 1.5        33.3%" in running[2]
    assert "eval loss  accuracy" in finished[1] and " 0.375     75.0%" in finished[2]
    for width in (80, 60, 40):
        monkeypatch.setenv("COLUMNS", str(width))
        for words in (("ls",), ("history",), ("history", "--all")):
            told = finetop(*words)[0]
            assert all(cells(printed) <= width for printed in told.splitlines())
            assert width < 80 or ("意图分类首次尝试" in told and "0.375" in told and "75.0%" in told)
    monkeypatch.setenv("COLUMNS", "200")
    several = finetop("history", "--all")[0]
    assert "score" in several.splitlines()[0] and "75.0% accuracy" in several and "33.3% exact_match" in several
    found = {run["id"]: run for run in json.loads(finetop("history", "--all", "--json")[0])}
    assert [(found[n]["score_name"], found[n]["score"]) for n in (1, 3)] == [("accuracy", 0.75), (None, None)]
    (row,) = csv.DictReader(io.StringIO(finetop("history", "--csv")[0]))
    assert (row["score_name"], row["score"], row["best_eval"]) == ("accuracy", "0.75", "0.375")
    assert "| eval loss | accuracy |" in finetop("history", "--markdown")[0]


def test_the_scores_of_any_number_of_runs_are_one_query(finetop, workspace):
    for _ in range(4):
        add(finetop)
    for run_id in (1, 2, 3):
        work(workspace, run_id, evaluated(1, 1.0, accuracy=run_id / 4))
    conn = reader(workspace.database)
    asked: list[str] = []
    conn.set_trace_callback(asked.append)
    found = queries.best_scores(conn, range(1, 5), ["eval/accuracy", "eval/chrf"])
    values = {run_id: {key: best.value for key, best in scores.items()} for run_id, scores in found.items()}
    assert values == {run_id: {"eval/accuracy": run_id / 4} for run_id in (1, 2, 3)}
    assert len(asked) == 1
    assert set(MAIN_SCORES) == set(METRICS), "each metric may be the main one"


def test_show_tells_the_whole_story_of_a_failed_run(finetop, workspace, tmp_path):
    add(finetop, "--preset", "quick", "--set", "run.tags=甲")
    (workspace.runs / "1" / "log.txt").write_text("loading\r100%\nValueError: too hot\n", "utf-8")
    work(
        workspace,
        1,
        line("plan", total_steps=10),
        metric(1, loss=2.0),
        line("checkpoint", step=1, path="checkpoints/step-00000001", bytes=1_500_000, kept=["latest", "best"]),
        line("eval", step=1, values={"eval/loss": 1.75}),
        line("event", event="oom", message="Memory ran out.", step=1),
        line("state", state="failed", reason="it broke", hint="Mend it."),
    )
    out, _ = finetop("show", 1)
    for words in ("failed: it broke", "Mend it.", "ValueError: too hot", "oom: Memory ran out.", "(preset quick)"):
        assert words in out
    for words in ("1/10", "甲", "1@1", "1.75", "1.4 MiB", "latest best", "gone", "predicted"):
        assert words in out
    assert "lora.dropout" not in out and "lora.dropout" in finetop("show", 1, "--all")[0]
    told = json.loads(finetop("show", 1, "--json")[0])
    assert told["settings"]["train.batch_size"] == {"value": 2, "origin": "preset quick"}
    assert told["seconds"] >= 0 and "busy_seconds" not in told
    assert told["metrics"]["eval/loss"]["last"] == 1.75 and told["checkpoints"][0]["name"] == "1@1"
    assert "there is no run 9; the newest is 1" in finetop("show", 9, code=2)[1]


def test_since_which_step_a_loss_is_nan_is_said_wherever_the_loss_is(finetop, workspace):
    add(finetop)
    nan = [line("metric", step=n, values={"train/loss": None}, nonfinite={"train/loss": "nan"}) for n in (310, 311)]
    work(workspace, 1, line("state", state="running"), metric(309, loss=0.9), *nan)
    assert "NaN since 310" in finetop("ls")[0]
    assert "NaN since step 310" in finetop("show", 1)[0]
    work(workspace, 1, line("state", state="done", step=311))
    assert "NaN since 310" in finetop("ls")[0] and "NaN since 310" in finetop("history")[0]
    assert json.loads(finetop("ls", "--json")[0])["recent"][0]["nan_since"] == 310


def test_of_a_reason_in_several_lines_lists_tell_the_first_and_show_all_of_it_once(finetop, workspace):
    add(finetop)
    story = ["rows.jsonl: no usable row", "  rows.jsonl:2: a bracket is missing", "Mend the file."]
    (workspace.runs / "1" / "log.txt").write_text("\n".join(story) + "\n", "utf-8")
    work(workspace, 1, line("state", state="failed", reason="\n".join(story[:2]), hint=story[2]))
    listed = finetop("ls")[0]
    assert listed.rstrip().endswith(story[0]) and "�" not in listed
    shown = finetop("show", 1)[0]
    assert [shown.count(words.strip()) for words in story] == [3, 1, 1]  # state, what went wrong, events
    assert "last lines of" not in shown


def test_show_tells_scores_beside_the_loss(finetop, workspace):
    add(finetop)
    evaluations = [
        line("eval", step=step, values={"eval/loss": 1.5, "eval/accuracy": accuracy, "eval/macro_f1": 0.5})
        for step, accuracy in ((5, 0.75), (10, 0.625))
    ]
    work(workspace, 1, metric(10, loss=1.0), *evaluations)
    told = [" ".join(row.split()) for row in finetop("show", 1)[0].splitlines()]
    assert "scores accuracy 0.625 best 0.75 at step 5" in told
    assert "macro_f1 0.5 best 0.5 at step 5" in told


def test_show_cuts_no_reason_on_a_narrow_terminal(finetop, workspace, monkeypatch):
    add(finetop)
    reason = "the tokenizer of '没有/这个' cannot be loaded: " + "它不在这台机器上。" * 12
    work(workspace, 1, line("state", state="failed", reason=reason, hint="Give a folder."))
    monkeypatch.setenv("COLUMNS", "50")
    told = finetop("show", 1)[0].split("what went wrong\n")[1].split("\n\n")[0]
    assert all(cells(row) <= 50 for row in told.splitlines())
    assert "".join(row.strip() for row in told.splitlines()).replace(" ", "") == (reason + "Give a folder.").replace(
        " ", ""
    )


def test_show_says_that_the_data_of_a_waiting_run_has_changed(finetop, tmp_path):
    add(finetop)
    assert "not what it was" not in finetop("show", 1)[0]
    (tmp_path / "意图.csv").write_text("text,label\n", "utf-8")
    wrapped = finetop("show", 1)[0]  # a long path is broken anywhere
    assert "意图.csvhaschanged" in "".join(wrapped.split())
    assert "意图.csv has changed" in json.loads(finetop("show", 1, "--json")[0])["data_changes"][0]


def test_following_the_log_of_a_waiting_run_says_that_it_waits(finetop, workspace, monkeypatch):
    add(finetop, "--hold")

    def look_away(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(logs.time, "sleep", look_away)
    assert "run 1 (held) has not started" in finetop("logs", 1, "-f", code=130)[1]


def test_following_a_run_tells_how_it_goes_to_its_end(finetop, workspace, monkeypatch):
    add(finetop)
    plan = line("plan", total_steps=20, steps_per_epoch=10, epochs=2, batch_size=4, settings={"optim.learning_rate": 1})
    work(workspace, 1, plan, *(metric(step, loss=5.0 - step / 10) for step in range(1, 11)))
    folder = workspace.runs / "1"
    waits = []

    def works_meanwhile(seconds):
        """What a worker does between two looks: 1. writes, 2. ends."""
        waits.append(seconds)
        if len(waits) == 1:
            (folder / "log.txt").write_text("a library speaks\n")
            write(folder, line("eval", step=12, values={"eval/loss": 0.25}))
        elif len(waits) == 2:
            write(folder, metric(20, loss=0.5), line("state", state="done"))
            conn = writer(workspace.database)
            import_journal(conn, 1, folder)
            run_lifecycle.finish(conn, 1, RunState.DONE, exit_code=0)
            conn.close()

    monkeypatch.setattr(logs.time, "sleep", works_meanwhile)
    out, err = finetop("logs", 1, "-f")
    told = out.splitlines()
    assert told[0].startswith("plan: 20 steps") and told[1].startswith("step 10 of 20") and "loss 4.0000" in told[1]
    assert told[2:4] == ["a library speaks", "step 12  eval loss 0.25"]
    assert told[4].startswith("step 20 of 20") and len(told) == 5
    assert err == "run 1: done\n"
    assert finetop("logs", 1, "-f", "-n", 2)[0].splitlines()[:2] == told[2:4], "the story of a run that has ended"


def test_a_loss_that_is_no_number_is_followed_too(finetop, workspace):
    add(finetop)
    work(workspace, 1, line("eval", step=1, values={"eval/loss": None}), line("state", state="stopped"))
    assert "step 1  eval loss —" in finetop("logs", 1, "-f")[0]


def test_following_the_events_tells_steps_and_waits_for_a_run_to_begin(finetop, workspace, monkeypatch):
    add(finetop)
    waits = []

    def begins(seconds):
        waits.append(seconds)
        if len(waits) == 1:
            work(workspace, 1, metric(1, loss=2.5), line("state", state="stopped"))
        else:
            conn = writer(workspace.database)
            run_lifecycle.finish(conn, 1, RunState.STOPPED, exit_code=3)
            conn.close()

    monkeypatch.setattr(logs.time, "sleep", begins)
    out, err = finetop("logs", 1, "--events", "-f")
    assert "has not started" in err
    assert any("metric" in told and "train/loss 2.5" in told for told in out.splitlines())


def test_logs_end_where_asked_and_hide_what_was_overwritten(finetop, workspace):
    add(finetop)
    assert "has printed nothing; what happened: finetop logs 1 --events" in finetop("logs", 1)[1]
    path = workspace.runs / "1" / "log.txt"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(20_000)) + b"10%\r50%\r100%\n\xff\x1b[2J\n")
    assert finetop("logs", 1, "-n", 2)[0] == "100%\n\ufffd\\x1b[2J\n"
    assert len(finetop("logs", 1, "-n", 0)[0].splitlines()) == 20_002
    finetop("stop", 1)
    assert finetop("logs", 1, "-n", 1, "-f")[0] == "\ufffd\\x1b[2J\n", "a run that has ended is not waited for"
    write(workspace.runs / "1", line("state", state="starting"), line("event", event="oom", message="坏了", step=3))
    assert "oom" in (out := finetop("logs", 1, "--events")[0]) and "step 3  坏了" in out
    assert json.loads(finetop("logs", 1, "--events", "--json", "-n", 1)[0])["message"] == "坏了"


# acting


def test_several_runs_and_ranges_are_acted_on_and_each_is_answered(finetop, workspace):
    for _ in range(5):
        add(finetop)
    out, _ = finetop("hold", "2-3,5", 4)
    assert out.splitlines() == ["run 2: held", "run 3: held", "run 5: held", "run 4: held"]
    assert len(finetop("release", "1-99")[0].splitlines()) == 5
    assert finetop("hold", 2, 77, code=2) == ("run 2: held\n", "finetop: there is no run 77\n")
    finetop("stop", 3)
    assert finetop("stop", 3, 4, code=1)[1] == "finetop: run 3 has been stopped\n"
    answers = json.loads(finetop("release", "2-3", "--json", code=1)[0])
    assert [(answer["run"], answer["done"], answer["why"]) for answer in answers] == [
        (2, True, ""),
        (3, False, "run 3 has been stopped"),
    ]
    for words in (("hold",), ("hold", "x"), ("hold", "5-2"), ("hold", "50-60"), ("hold", "--filter", "name:nope")):
        finetop(*words, code=2)
    assert states(workspace) == {1: "queued", 2: "queued", 3: "stopped", 4: "stopped", 5: "queued"}


def test_a_run_moves_in_the_queue_by_words_and_by_its_place(finetop, workspace):
    for _ in range(4):
        add(finetop)
    assert finetop("move", 4, "top")[0] == "run 4: is number 1 of 4 that wait\n"
    finetop("move", 1, 4)
    finetop("move", 2, "down")
    assert [run.id for run in queries.queue(reader(workspace.database))] == [4, 3, 2, 1]
    for where in ("0", "sideways", "-1"):
        finetop("move", 4, where, code=2)


def test_what_is_removed_comes_back_and_is_deleted_only_with_a_yes(finetop, workspace):
    for _ in range(3):
        add(finetop)
    size = sum(path.stat().st_size for path in (workspace.runs / "2").rglob("*"))
    out, err = finetop("rm", "1-2")
    assert f"run 2: in the trash ({size / 1024:.1f} KiB)" in out and "moved to the trash" in err
    assert [run["id"] for run in json.loads(finetop("history", "--trash", "--json")[0])] == [2, 1]
    assert "held" in finetop("restore", 1)[0]
    assert "Say --yes" in finetop("rm", "--purge", code=2)[1]
    assert "run 2: deleted" in finetop("rm", "--purge", "--yes")[0]
    assert finetop("rm", "--purge", "--yes")[1] == "the trash is empty\n"
    assert states(workspace) == {1: "held", 3: "queued"} and workspace.run_ids() == [1, 3]


def test_a_checkpoint_is_removed_listed_and_taken_back_as_a_run_is(finetop, workspace):
    run_id = add(finetop)
    for step in (3, 6):
        path = workspace.runs / str(run_id) / "checkpoints" / f"step-{step:08d}"
        path.mkdir(parents=True)
        (path / "adapter_model.safetensors").write_bytes(b"w" * 2048)
    saved = [line("checkpoint", step=step, path=f"checkpoints/step-{step:08d}") for step in (3, 6)]
    work(workspace, run_id, *saved, line("state", state="stopped", step=6))
    out, err = finetop("rm", f"{run_id}@6")
    assert "checkpoint of step 6 in the trash (2.0 KiB)" in out and "finetop restore" in err
    (item,) = json.loads(finetop("trash", "--json")[0])
    assert (item["name"], item["run"], item["step"], item["bytes"]) == (f"{run_id}@6", run_id, 6, 2048)
    assert f"{run_id}@6" in finetop("trash")[0]
    assert "checkpoint of step 6 is back" in finetop("restore", f"{run_id}@6")[0]
    assert finetop("trash")[1] == "the trash is empty\n"
    finetop("restore", f"{run_id}@6", code=1)
    finetop("restore", f"{run_id}@best", code=2)
    assert "Say --yes" in finetop("rm", "--purge", f"{run_id}@6", code=2)[1]
    assert "checkpoint of step 6 deleted" in finetop("rm", "--purge", f"{run_id}@6", "--yes")[0]
    finetop("rm", f"{run_id}@3", run_id)
    assert "1 run and 1 checkpoint" in finetop("rm", "--purge", code=2)[1]
    assert len(finetop("rm", "--purge", "--yes")[0].splitlines()) == 2
    assert not list(workspace.trash.iterdir()) and states(workspace) == {}


def test_every_interrupted_run_is_resumed_by_one_command(finetop, workspace):
    for _ in range(3):
        add(finetop)
    assert finetop("resume", "--interrupted")[1] == "no run was interrupted\n"
    conn = writer(workspace.database)
    for run_id in (1, 3):
        run_lifecycle.claim(conn, run_id)
        run_lifecycle.finish(conn, run_id, RunState.INTERRUPTED)
    assert "2 interrupted" in finetop("ls")[1]
    assert len(finetop("resume", "--interrupted")[0].splitlines()) == 2
    assert states(workspace) == {1: "queued", 2: "queued", 3: "queued"}
    assert "which run?" in finetop("resume", code=2)[1]


def test_rebuild_brings_the_queue_back_from_the_folders(finetop, workspace):
    add(finetop)
    work(workspace, 1, metric(1, loss=1.0), line("state", state="done", step=1))
    add(finetop, "--after", "1", "--hold")
    finetop("rm", 1)
    for suffix in ("", "-wal", "-shm"):
        (workspace.root / f"runs.db{suffix}").unlink(missing_ok=True)
    assert json.loads(finetop("rebuild", "--json")[0])["runs"] == 2
    assert states(workspace) == {2: "held"}
    assert "run 1: back, done" in finetop("restore", 1)[0]
    with daemon_client.exclusive(workspace):
        assert "is running" in finetop("rebuild", code=1)[1]


def test_doctor_finds_what_is_wrong_and_what_to_do(finetop, workspace):
    findings = json.loads(finetop("doctor", "--json")[0])
    assert {finding["area"] for finding in findings} == {
        "programs",
        "GPU",
        "limits",
        "workspace",
        "store",
        "daemon",
        "terminal",
    }
    assert any("torch" in finding["what"] for finding in findings)
    add(finetop)
    assert "1 runs" in finetop("doctor")[0]
    (workspace.root / "runs.db").write_bytes(b"scrambled" * 1000)
    for suffix in ("-wal", "-shm"):
        (workspace.root / f"runs.db{suffix}").unlink(missing_ok=True)
    out, _ = finetop("doctor", code=1)
    assert "is damaged or no database" in out and "finetop rebuild" in out


# as scripts and hands use them


def test_the_common_options_stand_before_the_command_or_after_it(finetop, workspace, tmp_path, monkeypatch, capsys):
    add(finetop, "--name", "甲")
    root = workspace.root
    monkeypatch.setenv("FINETOP_WORKSPACE", str(tmp_path / "elsewhere"))
    after = finetop("ls", "--workspace", root)
    assert "甲" in after[0]
    assert finetop("--workspace", root, "ls") == finetop(f"--workspace={root}", "ls") == after
    assert finetop("--workspace", tmp_path, "ls", "--workspace", root) == after, "the last one counts"
    for words in (("--workspace", root, "daemon", "status"), ("daemon", "--workspace", root, "status")):
        assert str(root) in finetop(*words)[0]
    assert "did you mean 'ls'?" in finetop("--workspace", root, "lss", code=2)[1]
    assert main(["--traceback", "presets", "none"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    front_door = subprocess.run(
        [FINETOP, "--workspace", root, "ls"], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert (front_door.stdout, front_door.stderr) == after


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_in_two_real_examples(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    told = capsys.readouterr().out
    assert left.value.code == 0
    examples = [
        shown.strip() for shown in told[told.index("examples:") :].splitlines() if shown.startswith("  finetop")
    ]
    assert len(examples) >= 2

    for example in examples:
        words = shlex.split(example.split(" | ")[0].split(" > ")[0])[1:]
        assert build_parser(words[0]).parse_args(words).run, example


def test_every_command_takes_json(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "--json" in capsys.readouterr().out, command


def environment(root: Path) -> dict[str, str]:
    hidden = ("FINETOP_WORKSPACE", "FINETOP_PRESETS", "PYTHONPATH", "FINETOP_NO_DAEMON")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return kept | {"HOME": str(root), "XDG_CONFIG_HOME": str(root), "FINETOP_WORKSPACE": str(root / "ws")}


def test_a_queued_run_is_trained_stopped_resumed_and_forked_without_a_terminal(
    tiny_model, chats, tmp_path, fork_server
):
    """The real daemon, workers that train, real commands."""

    def finetop(*words: object) -> str:
        done = subprocess.run(
            [FINETOP, *map(str, words)],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    workspace = Workspace(tmp_path / "ws")

    def until(run_id: int, *wanted: RunState) -> None:
        deadline = time.monotonic() + PATIENCE
        while (run := queries.run(reader(workspace.database), run_id)).state not in wanted:
            assert time.monotonic() < deadline, f"run {run_id} is {run.state}: {run.reason or run.wait_reason}"
            time.sleep(0.05)

    settings = ("--model", tiny_model, "--data-file", chats, "--batch-size", 4, "--max-length", 64)
    settings += ("--set", "train.threads=1", "--set", "model.dtype=float32", "--set", "save.every=4")
    try:
        assert finetop("add", *settings, "--epochs", 5000) == "1\n"
        until(1, RunState.RUNNING)
        finetop("stop", 1, "--wait")
        stopped = queries.run(reader(workspace.database), 1)
        assert stopped.state is RunState.STOPPED
        at = queries.checkpoints(reader(workspace.database), 1)[0].step
        assert finetop("fork", "1@latest", "--max-steps", 4, "--name", "分叉") == "2\n"
        finetop("resume", 1, "--max-steps", at + 4)
        until(1, RunState.DONE)
        until(2, RunState.DONE)
        forked = queries.run(reader(workspace.database), 2)
        assert (forked.parent_run, forked.parent_step, forked.name) == (1, at, "分叉")
        assert queries.run(reader(workspace.database), 1).step == at + 4
        assert {c.step: c.parent_step for c in queries.checkpoints(reader(workspace.database), 2)}[4] == 0
    finally:
        daemon_client.stop(workspace)


# words about runs


def test_edit_gives_runs_names_tags_and_notes(finetop, workspace):
    first, second = add(finetop), add(finetop)
    out, _ = finetop("edit", first, "--name", " 基线 ", "--note", "bad rows")
    assert out == f"run {first}: is called 基线, has a note\n"
    assert finetop("edit", f"{first},{second}", "--tag", "sql,paper", "--tag", "sql")[0].count("tagged sql paper") == 2
    runs = {run.id: run for run in queries.list_runs(reader(workspace.database))}
    assert (runs[first].name, runs[first].note, runs[first].tags) == ("基线", "bad rows", ("sql", "paper"))
    assert "基线" in (workspace.runs / str(first) / "config.json").read_text("utf-8")
    assert "has no tags" in finetop("edit", second, "--tag", "")[0]
    assert queries.run(reader(workspace.database), second).tags == ()


def test_edit_refuses_what_means_nothing(finetop):
    first, second = add(finetop), add(finetop)
    assert "nothing to change" in finetop("edit", first, code=2)[1]
    assert "one run" in finetop("edit", first, second, "--name", "both", code=2)[1]
    assert "at least one character" in finetop("edit", first, "--name", " ", code=2)[1]
    finetop("edit", 99, "--note", "x", code=2)
