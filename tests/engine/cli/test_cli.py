"""The commands as a person meets them: real processes, a real terminal, real signals, on a model of two layers."""

import contextlib
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.base.units import bytes_text
from engine.cli.main import main
from engine.cli.progress_line import LiveLine
from engine.present.data_warnings import data_warnings
from engine.present.numbers import duration
from engine.present.text import print_json, visible, wrap
from tests.engine.tiny_runs import events_of, last_state, series

FINETOP = SPAWNING_FINETOP = str(Path(sys.executable).with_name("finetop"))
pytestmark = pytest.mark.usefixtures("fork_server")
SMALL = ["--batch-size", "4", "--epochs", "2", "--max-length", "64", "--learning-rate", "3e-3"]
for _setting in ("train.threads=1", "train.micro_tokens=64", "save.every=3", "save.keep_last=0", "model.dtype=float32"):
    SMALL += ["--set", _setting]
PATIENCE = 90
"""Seconds a worker may take to get somewhere on a busy machine; one step takes about 10 ms."""


def environment(home: Path) -> dict[str, str]:
    hidden = ("FINETOP_WORKSPACE", "FINETOP_PRESETS", "PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home), "TERM": "xterm"}


def finetop(cwd: Path, *words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [FINETOP, *map(str, words)], cwd=cwd, env=environment(cwd), capture_output=True, text=True, timeout=PATIENCE
    )


def told(done: subprocess.CompletedProcess, code: int) -> str:
    """What the command said on stderr, its exit code having been the expected one."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def wait_for(condition, seconds: float = PATIENCE):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


class Terminal:
    """A command in a pseudo-terminal of its own, 100 columns wide."""

    def __init__(self, cwd: Path, *words: object) -> None:
        self.text = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(FINETOP, [FINETOP, *map(str, words)], environment(cwd) | {"COLUMNS": "100", "LINES": "30"})

    def read(self) -> str:
        """Whatever has been printed up to now."""
        with contextlib.suppress(OSError):  # EIO: the other side is gone
            while select.select([self._fd], [], [], 0.02)[0]:
                piece = os.read(self._fd, 65536)
                if not piece:
                    break
                self.text += piece.decode("utf-8", "replace")
        return self.text

    def ctrl_c(self) -> None:
        os.write(self._fd, b"\x03")

    def wait(self) -> int:
        def left():
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return (os.waitstatus_to_exitcode(status),) if pid else None

        (code,) = wait_for(left)
        self.read()
        os.close(self._fd)
        return code

    def hang_up(self) -> None:
        """What the loss of an SSH connection does: the terminal is gone, SIGHUP to those in it."""
        os.close(self._fd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def worker_pid(folder: Path) -> int:
    return events_of(folder, "state")[0]["pid"]


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture(scope="module")
def finished(tiny_model, chats, tmp_path_factory, _fork_server) -> tuple[Path, subprocess.CompletedProcess]:
    """A workspace with one finished run, and what its command said."""
    cwd = tmp_path_factory.mktemp("finished")
    words = ("--model", tiny_model, "--data-file", chats, *SMALL, "--save-config", "saved.json", "--json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "FINETOP", str(_fork_server.finetop))
        done = finetop(cwd, "train", *words)
    return cwd, done


@pytest.fixture
def workspace(finished, tmp_path) -> Path:
    """A copy of the workspace with one finished run."""
    shutil.copytree(finished[0], tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


# -- train ---------------------------------------------------------------------------------------------------------


def test_train_runs_to_the_end_and_tells_it_in_plain_lines(finished):
    cwd, done = finished
    said = told(done, 0)
    for words in (
        "data: ",
        "plan: 16 steps, 2 epochs of 8, batch 4, rate 3e-3",
        "model: Qwen2ForCausalLM",
        "held out",
    ):
        assert words in said
    assert re.search(r"step 16 of 16  epoch 2\.00  loss \d\.\d{4}  [\d,]+ tokens/s", said)
    assert "step 8  eval loss " in said and "saved checkpoints/step-00000016" in said
    assert f"run 1 is done: {cwd}/runs/1" in said
    assert "\x1b" not in said and "\r" not in said
    assert json.loads(done.stdout) == {"run": 1, "folder": f"{cwd}/runs/1", "state": "done", "step": 16}
    assert len(series(cwd / "runs" / "1")) == 16


def test_a_saved_config_reproduces_the_run_bit_for_bit(finished, tmp_path):
    cwd, _ = finished
    told(finetop(tmp_path, "train", "--config", cwd / "saved.json"), 0)
    assert series(tmp_path / "runs" / "1") == series(cwd / "runs" / "1")
    first, second = (json.loads((root / "runs" / "1" / "config.json").read_text()) for root in (cwd, tmp_path))
    assert {**first, "finetop": 0} == {**second, "finetop": 0}


def test_a_hub_name_without_a_network_is_told(tmp_path, chats):
    said = told(finetop(tmp_path, "train", "--model", "nobody/nothing", "--data-file", chats), 2)
    assert "'nobody/nothing' cannot be loaded" in said and "HF_HUB_OFFLINE" in said


def test_a_hub_that_cannot_be_reached_is_told_once_with_what_to_do(tmp_path, chats, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    # huggingface_hub reads these variables when it is imported, which a forked worker has behind it.
    monkeypatch.setattr(sys.modules[__name__], "FINETOP", SPAWNING_FINETOP)
    said = told(finetop(tmp_path, "plan", "--model", "nobody/nothing", "--data-file", chats), 2)
    assert "'nobody/nothing' is no folder here and not in the hub's cache" in said and "Give its folder" in said
    assert said.count("127.0.0.1:9") == 1 and "Retrying" not in said


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            ["train", "--val-file", "{chats}"],
            "no data to train on\nGive --data-file FILE, or try the samples: `finetop demo --headless`.",
        ),
        (["train", "{chats}"], "unknown: {chats}\nData is given with a flag: --data-file {chats}"),
        (["train", "--data", "{chats}"], "Did you mean --data-file?"),
        (["train", "--lr", "1e-4"], "Did you mean --learning-rate?"),
        (["train", "--columns", "prompt=ask"], "Did you mean --map?"),
        (["train", "--epoch", "3"], "Did you mean --epochs?"),
        (["train", "--warmup", "0.1"], "--set optim.warmup=VALUE"),
        (["train", "--set", "lora.r", "8"], "unknown: 8"),
        (["train", "--set", "lora.r"], "--set 'lora.r': expected key=value"),
        (["train", "--epochs"], "--epochs: expected one argument"),
        (["trian"], "there is no command 'trian'; did you mean 'train'?"),
        (["train", "--data-file", "{chats}x"], "Did you mean {chats}?"),
        (["train", "--data-file", "{chats}", "--val-file", "none.jsonl"], "none.jsonl does not exist"),
        (["train", "--data-file", "{chats}", "--model", "./none"], "there is no model folder ./none"),
        (["train", "--data-file", "{chats}", "--model", "{chats}"], "is a file"),
        (["train", "--data-file", "{chats}", "--model", "."], " is no model: it holds no config.json"),
        (["train", "--data-file", "{chats}", "--map", "promt=a"], "'promt' is nothing a column can be"),
        (["train", "--config", "{chats}"], "a data file is given with --data-file"),
        (["train", "--resume"], "there is no run to resume in"),
        (["train", "--resume", "9"], "there is no run 9 in"),
        (["train", "--resume", "9@last"], "'9@last' names no checkpoint"),
        (["train", "--resume", "1", "--preset", "quick"], "--resume goes on with the run's own settings"),
        (["train", "--workspace", "{chats}"], "is a file, not a folder"),
        (["presets", "quik"], "did you mean 'quick'?"),
    ],
)
def test_slips_are_answered_with_the_way_out_and_leave_nothing_behind(
    words, wanted, chats, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    wanted = wanted.replace("{chats}", str(chats))
    assert main([word.replace("{chats}", str(chats)) for word in words]) == 2
    assert wanted in capsys.readouterr().err.replace("…", "")
    assert not (tmp_path / "runs").exists()


def test_malformed_data_is_told_by_file_and_line(tmp_path):
    good = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    (tmp_path / "torn.jsonl").write_text(good + good[:30])
    (tmp_path / "nul.csv").write_bytes(b"question,answer\na,b\nc\0,d\ne,f\xff\n")
    said = told(finetop(tmp_path, "train", "--data-file", "torn.jsonl", "--data-file", "nul.csv"), 2)
    assert "torn.jsonl:2: " in said and "nul.csv:3: " in said
    assert "--set data.max_bad_share=SHARE" in said
    assert last_state(tmp_path / "runs" / "1")["state"] == "failed"


def test_malformed_data_is_told_by_the_plan_too(tmp_path):
    (tmp_path / "types.jsonl").write_text(
        '{"prompt": "a", "completion": "b"}\n{"prompt": 3.5, "completion": []}\n{"a":\n'
    )
    said = told(finetop(tmp_path, "plan", "--data-file", "types.jsonl"), 2)
    assert "types.jsonl:2: " in said and "types.jsonl:3: " in said
    assert [path.name for path in tmp_path.iterdir()] == ["types.jsonl"]


def test_unexpected_errors_are_one_line_and_a_traceback_on_request(monkeypatch, capsys):
    from engine.cli.commands import list_presets

    monkeypatch.setattr(list_presets, "all_presets", lambda: [][0])
    assert main(["presets"]) == 1
    assert capsys.readouterr().err == (
        "finetop: IndexError: list index out of range\nThe same command with --traceback shows where.\n"
    )
    assert main(["presets", "--traceback"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert main(["presets", "none", "--traceback"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


# -- plan ----------------------------------------------------------------------------------------------------------


def test_the_plan_shows_settings_origins_data_and_trained_tokens_and_starts_nothing(tmp_path, tiny_model, chats):
    done = finetop(
        tmp_path, "train", "--dry-run", "--all", "--show", 3, "--preset", "quick", "--epochs", 2, "--model", tiny_model,
        "--data-file", chats,
    )  # fmt: skip
    told(done, 0)
    out = done.stdout
    assert re.search(r"train\.epochs +2 +--epochs", out)
    assert re.search(r"train\.batch_size +2 +preset quick", out)
    assert re.search(r"lora\.r +16 +default", out)
    assert re.search(r"lora\.targets +all-linear", out)
    assert "36 rows, 0 bad; jsonl, utf-8, openai" in out and "optimizer steps, " in out
    assert out.count("trained tokens ⟦like this⟧") == 3
    marked = re.findall(r"⟦(.*?)⟧", out.split("example 1", 1)[1], re.DOTALL)[1:]
    assert len(marked) >= 3 and all(
        "<|im_end|>" in piece and "user" not in piece for piece in marked if piece != "like this"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_plan_as_json_parses_and_names_what_auto_became(workspace):
    """Of a run that is there, changed by flags: nothing of it is touched."""
    before = (workspace / "runs" / "1" / "config.json").read_bytes()
    done = finetop(workspace, "plan", "--resume", 1, "--json", "--show", 1, "--batch-size", "auto")
    told(done, 0)
    plan = json.loads(done.stdout)
    assert plan["settings"]["train.batch_size"] == "auto" and plan["auto"] == {"train.batch_size": 1}
    assert plan["origin"]["train.batch_size"] == "--batch-size" and plan["origin"]["train.seed"] == "default"
    assert any("train.batch_size was 4, would be 'auto'" in finding["message"] for finding in plan["findings"])
    assert plan["data"]["train"]["examples"] + plan["data"]["val"]["examples"] == 36
    assert [trained for _, trained in plan["examples"][0]][:2] == [False, True]
    assert (workspace / "runs" / "1" / "config.json").read_bytes() == before
    assert [path.name for path in (workspace / "runs").iterdir()] == ["1"]


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    with subprocess.Popen(
        [FINETOP, "presets", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as run:
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 0


# -- resume --------------------------------------------------------------------------------------------------------


def test_going_back_to_a_checkpoint_and_further_than_the_end(workspace):
    folder = workspace / "runs" / "1"
    before = series(folder)
    assert "run 1 is done, there is nothing left to do" in told(finetop(workspace, "train", "--resume"), 2)
    assert "1 has no checkpoint '4'\nIt has best, epoch-1" in told(finetop(workspace, "train", "--resume", "1@4"), 2)

    said = told(finetop(workspace, "train", "--resume", "1@epoch-1"), 0)
    assert "going on after step 8" in said
    assert series(folder) == before

    said = told(finetop(workspace, "train", "--resume", "--epochs", "3"), 0)
    assert "going on after step 16" in said and "plan: 24 steps" in said
    assert [row[0] for row in series(folder)] == list(range(1, 25))
    assert json.loads((folder / "config.json").read_text())["finetop"]["origin"]["train.epochs"] == "--epochs"


def test_a_resume_that_would_be_another_run_is_refused_and_changes_nothing(workspace, capsys):
    config = workspace / "runs" / "1" / "config.json"
    before = config.read_bytes()
    words = ["train", "--workspace", str(workspace), "--resume", "1", "--epochs", "5"]
    assert main([*words, "--learning-rate", "1", "--set", "lora.r=2"]) == 2
    said = capsys.readouterr().err
    assert "optim.learning_rate was 0.003, would be 1.0" in said and "lora.r was 16, would be 2" in said
    assert "train.epochs" not in said
    assert config.read_bytes() == before


# -- a terminal, and signals ---------------------------------------------------------------------------------------

LONG = ["--epochs", "5000", "--set", "eval.every=1000000", "--set", "save.every=0", "--set", "save.keep_epochs=1"]


def test_a_live_line_and_ctrl_c_once_saves_and_says_how_to_go_on(tiny_model, chats, tmp_path):
    terminal = Terminal(tmp_path, "train", "--model", tiny_model, "--data-file", chats, *SMALL, *LONG)
    live = re.compile(r"\r\x1b\[K[█·]{20} step [\d,]+ of [\d,]+  epoch [\d.]+  loss \d+\.\d{4}  [\d,]+ tokens/s")
    wait_for(lambda: live.search(terminal.read()))
    terminal.ctrl_c()
    assert terminal.wait() == 0
    folder = tmp_path / "runs" / "1"
    step = last_state(folder)["step"]
    assert last_state(folder)["state"] == "stopped" and 0 < step < 35_000
    assert "Finishing the step and saving. Ctrl-C once more leaves at once." in terminal.text
    assert f"run 1 stopped at step {step:,}, saved. Go on with: finetop train --resume 1" in terminal.text
    assert (folder / "checkpoints" / "latest").resolve().name == f"step-{step:08d}"
    assert all(len(line) < 100 for line in re.split(r"\r\x1b\[K|\r?\n", terminal.text) if line.startswith(("█", "·")))

    said = told(finetop(tmp_path, "train", "--resume", "1", "--max-steps", step + 2), 0)
    assert f"going on after step {step:,}" in said and "run 1 is done" in said
    assert [row[0] for row in series(folder)] == list(range(1, step + 3))


def test_ctrl_c_twice_leaves_at_once(tiny_model, chats, tmp_path):
    terminal = Terminal(tmp_path, "train", "--model", tiny_model, "--data-file", chats, *SMALL, *LONG)
    folder = tmp_path / "runs" / "1"
    wait_for(lambda: terminal.read() and events_of(folder, "state"))
    pid = worker_pid(folder)
    os.kill(pid, signal.SIGSTOP)  # a worker that cannot finish its step
    terminal.ctrl_c()
    wait_for(lambda: "once more leaves at once" in terminal.read())
    terminal.ctrl_c()
    assert terminal.wait() == 1
    assert not is_alive(pid)
    assert "run 1 was left at once, unsaved." in terminal.text and "finetop train --resume 1" in terminal.text


def test_a_worker_that_is_killed_is_told_as_such(tiny_model, chats, tmp_path):
    words = ["train", "--model", str(tiny_model), "--data-file", str(chats), *SMALL, *LONG]
    with open(tmp_path / "err", "w") as err:
        command = subprocess.Popen([FINETOP, *words], cwd=tmp_path, env=environment(tmp_path), stderr=err)
    folder = tmp_path / "runs" / "1"
    wait_for(lambda: events_of(folder, "metric"))
    with open(folder / "log.txt", "a") as log:
        log.write("the last words in the log\n")
    os.kill(worker_pid(folder), signal.SIGKILL)
    assert command.wait(PATIENCE) == 1
    said = (tmp_path / "err").read_text()
    assert "run 1: the worker was killed by SIGKILL." in said and "the last words in the log" in said
    assert "runs out" in said and f"log: {folder}/log.txt" in said
    assert "Go on from the last checkpoint with: finetop train --resume 1" in said


def test_closing_the_terminal_leaves_the_worker_alone(tiny_model, chats, tmp_path):
    """And a folder engine/ where the user stands is not taken for ours; a run being trained is not trained twice."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("raise SystemExit('the wrong engine')\n")
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')\n")
    terminal = Terminal(tmp_path, "train", "--model", tiny_model, "--data-file", chats, *SMALL, *LONG)
    folder = tmp_path / "runs" / "1"
    wait_for(lambda: terminal.read() and events_of(folder, "metric"))
    terminal.hang_up()
    seen = len(events_of(folder, "metric"))
    wait_for(lambda: len(events_of(folder, "metric")) > seen + 5)
    said = told(finetop(tmp_path, "train", "--resume", "1"), 2)
    assert "run 1 is being trained already" in said
    pid = worker_pid(folder)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not is_alive(pid))
    assert last_state(folder)["state"] == "stopped"


# -- words ---------------------------------------------------------------------------------------------------------


def report(**changes) -> dict:
    part = {"overlong": 0, "cut_tokens": 0, "cut_supervised": 0}
    return {"files": [], "problems": [], "problem_counts": {}, "train": part, "val": part} | changes


def problem(code: str, line: int) -> dict:
    return {"file": "a.jsonl", "line": line, "code": code, "message": f"it is {code}", "excerpt": "shown"}


def test_rows_left_out_and_rows_kept_in_part_are_told_apart():
    problems = [problem("trailing-turn", 1), problem("bad-json", 2), problem("nothing-trained", 3)]
    counts = {"trailing-turn": 40, "bad-json": 2, "nothing-trained": 1}
    lines = data_warnings(report(files=[{"bad_rows": 2}], problems=problems, problem_counts=counts))
    assert lines == [
        "3 rows are left out: 2 bad-json, 1 nothing-trained",
        "  a.jsonl:2: it is bad-json",
        "      shown",
        "  a.jsonl:3: it is nothing-trained",
        "      shown",
        "40 rows are used without the part that does not fit: 40 trailing-turn",
        "  a.jsonl:1: it is trailing-turn",
        "      shown",
        "  `finetop plan` with the same flags shows more of them",
    ]
    assert data_warnings(report()) == []
    cut = {"overlong": 3, "cut_tokens": 1000, "cut_supervised": 10}
    assert data_warnings(report(val=cut)) == [
        "val: 3 examples are longer than data.max_length: 1,000 tokens cut, 10 of them answers"
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0s"), (0.4, "0.4s"), (41.6, "42s"), (185, "3m 05s"), (600, "10m"), (7860, "2h 11m"), (273_600, "3d 4h")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(512, "512 B"), (9.1 * 2**20, "9.1 MiB"), (80 * 2**30, "80.0 GiB"), (2**41, "2.0 TiB")]
)
def test_sizes(count, words):
    assert bytes_text(count) == words


def test_what_a_file_says_is_shown_and_never_obeyed():
    assert visible("a\x1b[2J\n名\x9b\u202e") == "a\\x1b[2J\n名\\x9b\\u202e"


def test_json_stays_json_where_the_output_has_no_room_for_chinese(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "latin-1", errors="backslashreplace", write_through=True))
    print_json({"名": "甲é"})
    assert json.loads(raw.getvalue().decode("latin-1")) == {"名": "甲é"}


def test_long_lines_break_at_spaces_and_chinese_anywhere():
    assert wrap("a configuration of words", 14) == ["a", "configuration", "of words"]
    assert wrap("  File 'x.py', in main", 16, "  ", "    ") == ["    File 'x.py',", "    in main"]
    assert wrap("没有：这个文件不在", 8, "! ", "  ") == ["! 没有：", "  这个文", "  件不在"]
    assert wrap("", 8) == [""]
    assert wrap("abcdef", 2, "", "    ") == ["ab", "cd", "ef"], "no line is longer than asked, whatever its indent"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_that_is_written_over_fits_the_terminal_and_stays_below_what_is_said(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("TERM", "xterm")
    line = LiveLine(out := Tty())
    line.draw("训练数据 and more")
    line.say("done")
    line.clear()
    line.say("left")
    begin = "\r\x1b[K"
    assert out.getvalue() == f"{begin}训练数据…{begin}done\n{begin}训练数据…{begin}left\n"
    LiveLine(plain := io.StringIO()).draw("nothing")
    assert plain.getvalue() == ""
