"""What `finetop doctor` says of limits."""

import json
import resource

from engine.cli.main import main
from tests.engine.groups import fake_groups
from tests.engine.mounts import fill_with_files, small_disk

__all__ = ["fake_groups"]
GIB = 1 << 30


def limits(capsys) -> list[tuple[str, str]]:
    main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    return [(finding["what"], finding["verdict"]) for finding in findings if finding["area"] == "limits"]


def test_limits_of_memory_and_processors_are_noted_with_who_set_them(fake_groups, capsys, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    machine = fake_groups("/system.slice/slurmstepd.scope/job_12/step_0")
    machine.group("/system.slice/slurmstepd.scope/job_12", 2 * GIB, used=GIB, cpu="150000 100000")
    machine.group("/system.slice/slurmstepd.scope/job_12/step_0")
    (memory, verdict), *noted = limits(capsys)
    assert memory.endswith("1.0 GiB of it free for finetop") and verdict == "ok"
    assert noted == [
        ("memory limit 2.0 GiB of Slurm job 12, 1.0 GiB in use", "note"),
        ("processors: 1.5 of 8, by a quota", "note"),
    ]


def test_the_size_a_file_may_have_is_noted_where_it_is_bounded(fake_groups, capsys, monkeypatch):
    fake_groups("/")
    bounds = (100 * 1024, resource.RLIM_INFINITY)
    monkeypatch.setattr("resource.getrlimit", lambda which: bounds)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert limits(capsys)[1:] == [("files: at most 100.0 KiB each (`ulimit -f`)", "note")]


def test_a_disk_that_holds_no_more_files_is_named(tmp_path, capsys):
    with small_disk(tmp_path / "small", "400m", files=20) as disk:
        fill_with_files(disk / "filler")
        assert main(["doctor", "--json", "--workspace", str(disk)]) == 1
        findings = json.loads(capsys.readouterr().out)
        (bad,) = [finding for finding in findings if finding["verdict"] == "bad"]
    assert bad["what"].startswith(f"no inode left in {disk}: ") and "runs pause" in bad["what"]
    assert "df -i" in bad["hint"]
