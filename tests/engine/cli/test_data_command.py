"""`finetop data` as a user meets it: exit codes, 80 columns, JSON, slips."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from engine.base.system_errors import system_error
from engine.cli.main import main
from engine.present.text import cells
from tests.engine.groups import real_memory_group
from tests.engine.mounts import read_only, small_disk


def rows(path: Path, *pairs: tuple[str, str]) -> str:
    text = "".join(json.dumps({"prompt": q, "completion": a}, ensure_ascii=False) + "\n" for q, a in pairs)
    path.write_text(text, "utf-8")
    return str(path)


def test_a_sound_file_leaves_with_0_and_a_serious_find_with_1(tmp_path, capsys):
    good = rows(tmp_path / "good.jsonl", ("你好吗？", "很好"), ("and you?", "fine"))
    assert main(["data", "check", good]) == 0
    assert "nothing serious found" in capsys.readouterr().out
    bad = rows(tmp_path / "bad.jsonl", ("is it open?", "yes"), ("is it open?", "no"))
    assert main(["data", "check", bad]) == 1
    out = capsys.readouterr().out
    assert "line 1: answered 'yes' here, 'no' at line 2" in out
    assert main(["data", "check", str(tmp_path / "none.jsonl")]) == 2


def test_a_full_or_read_only_disk_is_said_and_leaves_nothing_unfinished(tmp_path, capsys):
    """And what a command that was killed has left of the same file is removed by the next."""
    big = rows(tmp_path / "big.jsonl", *[(f"how long does card {i} take to come?", "a week") for i in range(20_000)])
    with small_disk(tmp_path / "disk", "600k") as disk:
        for words in (
            ["convert", big, str(disk / "out.jsonl"), "--to", "openai"],
            ["clean", big, str(disk / "out.jsonl")],
        ):
            assert main(["data", *words]) == 1
            assert f"finetop: no space left in {disk}\n" in capsys.readouterr().err
            assert os.listdir(disk) == []
        assert main(["plan", "--data-file", big, "--save-config", "/dev/full"]) == 2
        assert "no space left" in capsys.readouterr().err
        small, dead = rows(tmp_path / "small.jsonl", ("a", "b"), ("c", "d")), subprocess.Popen(["true"])
        dead.wait()
        abandoned = [f".{dead.pid}@{socket.gethostname()}.0123abcd.partial.out.jsonl"]
        others = [
            f".{os.getpid()}@{socket.gethostname()}.0123abcd.partial.out.jsonl",
            ".9@elsewhere.0123abcd.partial.out.jsonl",
        ]
        for name in [*abandoned, *others]:
            (disk / name).touch()
        assert main(["data", "convert", small, str(disk / "out.jsonl"), "--to", "openai"]) == 0
        assert sorted(os.listdir(disk)) == sorted([*others, "out.jsonl"])
    with small_disk(tmp_path / "disk", "600k") as disk, read_only(disk):
        capsys.readouterr()
        assert main(["data", "convert", small, str(disk / "new.jsonl"), "--to", "openai"]) == 1
        assert capsys.readouterr().err == f"finetop: {disk}/new.jsonl: Read-only file system\nChoose another folder.\n"
        assert main(["--workspace", str(disk), "add", "--data-file", small, "--hold"]) == 1
        error = capsys.readouterr().err
        assert f"no file can be made in {disk}: Read-only file system\nChoose another folder" in error


def test_what_the_system_refuses_is_told_with_what_to_do(tmp_path):
    def told(code: int, path: str = "") -> str:
        error = system_error(OSError(code, os.strerror(code), path or str(tmp_path / "x")))
        assert error.hint
        return error.message

    assert told(errno.EDQUOT) == f"the quota is used up in {tmp_path}"
    assert told(errno.EFBIG) == f"{tmp_path}/x would be larger than a file may be here"
    assert told(errno.ENAMETOOLONG, "/" + "x" * 5000) == "/" + "x" * 118 + "…: File name too long"
    assert "no space left in the disk" in system_error(OSError(errno.ENOSPC, "No space left on device")).message


def test_json_holds_every_find_and_nothing_else_is_printed(tmp_path, capsys):
    path = rows(tmp_path / "a.jsonl", *[("the same", "again")] * 30)
    assert main(["data", "check", path, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["counts"] == {"duplicates": 29} and len(report["finds"]) == 29
    assert report["failed"] is False
    assert report["finds"][0]["line"] == 2 and report["finds"][0]["other_line"] == 1


def test_lines_fit_80_columns_and_text_of_the_file_is_never_obeyed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    long = "我想咨询一下这张卡什么时候可以寄到家里来呢" * 9
    path = rows(tmp_path / "a.jsonl", *[(f"\x1b[31m{long}", "yes"), (f"\x1b[31m{long}", "no")] * 9)
    assert main(["data", "check", path]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(cells(line) for line in out.splitlines()) <= 80
    assert "and 13 more (--all)" in out
    assert main(["data", "check", path, "--all"]) == 1
    assert "more (--all)" not in capsys.readouterr().out


def test_clean_convert_split_from_the_command_line(tmp_path, capsys):
    source = rows(tmp_path / "a.jsonl", *[(f"question {n * 37:b}", f"answer {n}") for n in range(40)], ("q", ""))
    assert main(["data", "clean", source, str(tmp_path / "b.jsonl")]) == 0
    assert "40 of 41 rows" in capsys.readouterr().out
    assert main(["data", "convert", str(tmp_path / "b.jsonl"), str(tmp_path / "c.json"), "--to", "sharegpt"]) == 0
    assert main(["data", "split", str(tmp_path / "c.json"), "--val", "0.25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == {"train": 30, "val": 10}
    assert main(["data", "convert", source, str(tmp_path / "d.jsonl"), "--to", "openai"]) == 2
    assert "a.jsonl:41" in capsys.readouterr().err


def test_slips_are_told_with_the_way_out(tmp_path, capsys):
    source = rows(tmp_path / "a.jsonl", ("q", "a"), ("r", "b"))
    for words, said in (
        (["clean", source, "x.jsonl", "--remove", "duplicate"], "did you mean 'duplicates'"),
        (["split", source], "--val"),
        (["split", source, "--val", "1.5"], "--val"),
        (["convert", source, str(tmp_path / "x.csv"), "--to", "openai"], ".jsonl"),
        (["check", source, "--map", "prompt"], "ROLE=COLUMN"),
        (["check", source, "--max-length", "2"], "--max-length"),
    ):
        assert main(["data", *words]) == 2
        assert said in capsys.readouterr().err


def test_checking_loads_no_torch(tmp_path):
    source = rows(tmp_path / "a.jsonl", ("q", "a"), ("call +49 30 901820", "b"))
    code = (
        "import sys\nfrom engine.cli.main import main\n"
        f"main(['data', 'check', {source!r}])\nassert not {{'torch', 'transformers', 'pandas'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr


def test_a_process_of_ours_that_the_oom_killer_takes_is_told_with_the_limit(tmp_path):
    """A real one, in a group in which no tokenizer can be loaded."""
    file = rows(tmp_path / "a.jsonl", ("is it open?", "yes"), ("and now?", "no"))
    enter = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
    command = [sys.executable, "-P", "-m", "engine.cli.main", "data", "check", file, "--model", "starter"]
    with real_memory_group(100 << 20) as group:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
        done = subprocess.run(
            ["sh", "-c", enter, str(group), *command], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == (
        "finetop: the tokenizer's process was killed by SIGKILL\n"
        f"Out of memory (limit 100.0 MiB of control group /{group.name}): the kernel's OOM killer ended it.\n"
    )
