"""eval.command: a program of the user's scores the answers; whatever it does, the run says so in words."""

import json
import shlex
import sys
import time

import pytest

from engine.base.errors import InputError
from engine.base.workspace import Workspace
from engine.formats.source_names import MOST_SOURCES, groups, source_names
from engine.metrics.scoring_command import CommandFailed, ScoreCommand, changed, check_command, read_numbers
from engine.runs.run_folder import absolute, create_run, data_changes
from engine.settings.resolve import Layer, resolve

LINES = [{"prompt": "问", "reference": "是", "text": "是 \ud800", "label": None}] * 3


def command(tmp_path, code: str, seconds: float = 20.0, *words: str) -> ScoreCommand:
    (tmp_path / "a script.py").write_text(code, "utf-8")
    return ScoreCommand(shlex.join([sys.executable, "a script.py", *words]), tmp_path, seconds)


def test_it_gets_the_predictions_and_its_words_as_they_are_and_no_shell_reads_them(tmp_path):
    code = """
import json, sys
lines = [json.loads(line) for line in sys.stdin]
print(json.dumps({"n": len(lines), "words": float(sys.argv[1:] == ["$HOME", "*", "a;b"])}))
"""
    assert command(tmp_path, code, 20.0, "$HOME", "*", "a;b").numbers(LINES) == {"n": 3, "words": 1.0}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "ended with status 3"),
        ("1 / 0", "ended with status 1: ZeroDivisionError: division by zero"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("pass", "wrote nothing"),
        ("print('fine')", "no JSON object of numbers: fine"),
        ("print('[1]')", "no JSON object"),
        ('print(\'{"a": "b"}\')', "'a' is \"b\", which is no number"),
        ("print('{\"a\": true}')", "no number"),
        ("print('{\"a\": Infinity}')", "no number"),
        ("print('{\"a\": 1' + '0' * 400 + '}')", "no number"),
        ("print('{\"loss\": 1}')", "measures itself"),
        ("print('{\"exact_match@web\": 1}')", "measures itself"),
        ("print('{\"a b\": 1}')", "no name for a metric"),
        ("import json; print(json.dumps({f'a{n}': n for n in range(51)}))", "51 numbers; 50 are the most"),
        ("print('x' * (3 << 20), flush=True); input(); import time; time.sleep(60)", "more than 1 MiB|no JSON"),
    ],
)
def test_what_goes_wrong_is_said(code, words, tmp_path):
    with pytest.raises(CommandFailed, match=words):
        command(tmp_path, code).numbers(LINES)


def test_one_that_takes_too_long_is_ended_with_all_it_started(tmp_path):
    began, beats = time.monotonic(), []
    code = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3); open('late', 'w')"])
time.sleep(60)
"""
    with pytest.raises(CommandFailed, match="longer than 1s"):
        command(tmp_path, code, 1.0).numbers(LINES, lambda: beats.append(1))
    assert time.monotonic() - began < 15 and beats
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_a_name_may_say_of_which_source_it_is():
    assert read_numbers('{"kappa@web": 0.5, "wer": 1e-3, "none": null}') == {"kappa@web": 0.5, "wer": 0.001}
    assert read_numbers('{\n "a": NaN\n}')["a"] != 0


def test_what_cannot_work_is_refused_before_a_run_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, words in (
        ("'open", "no closing quotation"),
        ("  ", "names no program"),
        ("no-such-program-anywhere x", "is not there"),
        ("./score.py", "is not there"),
        ("/" + "x" * 5000, "is not there"),
        (f"{sys.executable} {'x' * 5000}.py", "there is no file"),
        (f"{sys.executable} score.py", r"there is no file .*score\.py"),
    ):
        with pytest.raises(InputError, match=words):
            check_command(text, tmp_path)
    (tmp_path / "score.py").write_text("")
    check_command(f"{sys.executable} score.py --level 2", tmp_path)
    with pytest.raises(InputError, match="cannot be run"):
        check_command("./score.py", tmp_path)
    for text in ("'open", "a\0b", "", "x" * 5000):
        assert absolute({"eval.command": text}) == {"eval.command": text}
    kept = absolute({"eval.command": "python3 score.py --as score"})["eval.command"]
    program, *words = shlex.split(kept)
    assert program.startswith("/") and words == [str(tmp_path / "score.py"), "--as", "score"]


def test_another_program_is_told_from_the_same_one(tmp_path):
    one = command(tmp_path, "print(1)")
    before = one.identity()
    assert changed(before, json.loads(json.dumps(one.identity()))) == [] and changed(None, None) == []
    (tmp_path / "a script.py").write_text("print(2)")
    assert changed(before, one.identity()) == [f"{tmp_path / 'a script.py'} has changed"]
    (tmp_path / "a script.py").unlink()
    assert changed(before, one.identity()) == [f"{tmp_path / 'a script.py'} is gone"]
    assert "was not set and is" in changed(None, before)[0]


def test_a_queued_run_says_when_the_program_has_changed_since(tmp_path):
    (tmp_path / "score.py").write_text("print(1)")
    values = {"data.files": ["x"], "eval.command": shlex.join([sys.executable, str(tmp_path / "score.py")])}
    resolved = resolve([Layer("test", values)])
    _, folder = create_run(Workspace(tmp_path), resolved)
    assert data_changes(folder, resolved.config) == []
    (tmp_path / "score.py").write_text("print(2)")
    assert data_changes(folder, resolved.config) == [f"{tmp_path / 'score.py'} has changed"]


def test_sources_have_short_names_each_its_own():
    named = {
        "/a/web.jsonl": "a-web",
        "/b/web.jsonl": "b-web",
        "/b/books.csv": "books",
        "org/chats:en:train": "chats-en-train",
        "/c/x.csv": "c-x-1",
        "/c/x.json": "c-x-2",
        "/中文/数据 一.jsonl": "数据-一",
        "only@name": "only-name",
    }
    assert source_names(named) == named


def test_so_many_sources_have_figures_of_their_own():
    assert groups(["a.csv"] * 3) == {} == groups([])
    assert groups(["a.csv", "b.csv", "a.csv"]) == {"a": [0, 2], "b": [1]}
    files = [f"part-{n}.csv" for n in range(30) for _ in range(n + 1)]
    assert sorted(groups(files)) == sorted(f"part-{n}" for n in range(30 - MOST_SOURCES, 30))
