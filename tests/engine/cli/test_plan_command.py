"""`finetop plan` from the outside: what it prints, when, and what runs leave for the next plan."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.base.workspace import PACKAGE_ROOT, Workspace
from engine.plan.hardware import past_runs
from engine.store.connect import reader, writer
from engine.store.discover import import_unknown
from engine.store.past_runs import past_runs as measured
from engine.worker.train.loop import train
from tests.engine.tiny_runs import events_of, make_run

FINETOP = str(Path(sys.executable).with_name("finetop"))


def finetop(*words):
    return subprocess.run(
        [FINETOP, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=PACKAGE_ROOT,
        env=os.environ | {"FINETOP_WORKSPACE": os.environ["HOME"]},
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model, chats):
    """A workspace with one run that has been trained to its end."""
    root = tmp_path_factory.mktemp("workspace")
    folder = make_run(root, tiny_model, chats, train__epochs=1)
    assert train(folder) == 0
    with contextlib.closing(writer(root / "runs.db")) as conn:
        import_unknown(conn, Workspace(root))
    return root, folder


def test_the_plan_holds_memory_by_part_time_cost_and_advice(tiny_model, chats, fork_server):
    done = finetop("plan", "--model", tiny_model, "--data-file", chats, "--epochs", 8, "--price-kwh", 0.3, "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    memory = plan["memory"]
    assert memory["low"] <= memory["expected"] <= memory["high"] and sum(memory["parts"].values()) == memory["expected"]
    assert memory["trainable"] < memory["parameters"] and memory["cards"]
    assert plan["training_tokens"] == plan["data"]["train"]["tokens"] * 8
    assert plan["time"]["tokens_per_second"] > 0 and "arithmetic" in plan["time"]["from"]
    assert plan["cost"]["openai"]["gpt-4o-mini"] == pytest.approx(plan["training_tokens"] / 1e6 * 3)
    assert {"too-few", "many-epochs", "small-validation"} <= {piece["code"] for piece in plan["advice"]}


def test_memory_is_said_before_the_data_is_read_and_the_model_needs_not_be_there(tmp_path):
    """While the worker that reads the data is still loading, what is known without it is on the screen."""
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n' * 10)
    with subprocess.Popen(
        [sys.executable, "-m", "tui", "plan", "--model", "Qwen/Qwen2.5-7B-Instruct", "--data-file", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=PACKAGE_ROOT,
        env=os.environ | {"FINETOP_WORKSPACE": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        text=True,
    ) as plan:
        first = plan.stderr.readline()
        assert plan.poll() is None, "everything was printed at the end only"
        said, _ = plan.communicate(timeout=60)
        assert plan.returncode != 0
    assert first.startswith("memory: about ")
    assert "7.6" in said and "B parameters" in said and "weights of the model" in said and "fits on" in said


def test_the_plan_ends_with_the_verdict_and_shows_what_differs_from_the_defaults(tiny_model, chats, fork_server):
    words = ("plan", "--model", tiny_model, "--data-file", chats, "--epochs", 8)
    done = finetop(*words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("memory") == 1 and lines.count("fits on") == 1
    assert lines.index("memory") < (verdict := lines.index("plan")) < lines.index("advice")
    assert "fit" in lines[verdict + 1] and "optimizer steps" in lines[verdict + 2]
    assert any("train.epochs" in told and "--epochs" in told for told in lines) and "lora.r " not in done.stdout
    assert "lora.r " in finetop(*words, "--all").stdout


def test_a_run_leaves_its_measured_peak_beside_the_predicted_one(trained):
    root, folder = trained
    told = events_of(folder, "memory")
    assert len(told) >= 2 and told[-1]["peak_bytes"] >= told[0]["peak_bytes"] > 0
    assert told[-1]["predicted_bytes"] > 0 and told[-1]["micro_tokens"] == 64
    with contextlib.closing(reader(root / "runs.db")) as conn:
        (run,) = [one for one in measured(conn) if one.run_id == int(folder.name)]
    assert run.measured_bytes == told[-1]["peak_bytes"] and run.predicted_bytes == told[-1]["predicted_bytes"]
    assert run.device == "cpu" and run.tokens_per_second > 0


def test_the_next_plan_goes_by_the_runs_before_it(trained, fork_server):
    root, folder = trained
    (past,) = past_runs(Workspace(root))
    assert past.method == "lora" and past.measured_bytes
    done = finetop("plan", "--workspace", root, "--resume", folder.name, "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["memory"]["corrected_by_runs"] == 1
    assert plan["time"]["from"] == "a run of this model by lora on this machine"
    assert plan["time"]["tokens_per_second"] == pytest.approx(past.tokens_per_second)
