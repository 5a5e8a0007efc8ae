"""`finetop eval`, `finetop sample` and `finetop samples`, through worker processes."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from engine import formats
from engine.base.errors import InputError
from engine.base.worker_process import DONE
from engine.base.workspace import Workspace
from engine.cli.commands.sample import read_prompts, side_by_side, wrap
from engine.cli.main import main
from engine.present.data_warnings import data_warnings
from engine.present.text import cells
from engine.runs import evaluation_folder
from engine.runs.model_refs import find_model_refs
from engine.settings.resolve import read_run
from engine.worker.data.tokenize import prepare
from engine.worker.evaluate.model_cache import ModelCache
from engine.worker.train.loop import train
from tests.engine.tiny_runs import events_of, make_run, write_jsonl

pytestmark = pytest.mark.usefixtures("fork_server")


@pytest.fixture(scope="module")
def workspace(tiny_model, tmp_path_factory) -> Path:
    """Run 1: a LoRA, run 2: a full fine-tune, of the same base on the same classification."""
    root = tmp_path_factory.mktemp("workspace")
    table = root / "table.csv"
    rows = [f"{w} number {n},{label}" for n in range(14) for w, label in (("apple", "fruit"), ("月亮", "sky"))]
    table.write_text("text,label\n" + "\n".join(rows) + "\n", "utf-8")
    shared = {
        "eval__prompts": ["Where is 月亮?", "Say apple."],
        "eval__max_new_tokens": 6,
        "eval__metrics": ["accuracy"],
    }
    for method in ("lora", "full"):
        changes = {"method__kind": method, "optim__learning_rate": 1e-2 if method == "lora" else 5e-3}
        assert train(make_run(root, tiny_model, table, train__epochs=6, **shared, **changes)) == DONE
    test = root / "test.csv"
    test.write_text("text,label\napple number 99,fruit\n月亮 number 98,sky\napple number 97,fruit\n", "utf-8")
    return root


def _ask(capsys, workspace: Path, *words: str) -> tuple[int, str, str]:
    code = main([words[0], "--workspace", str(workspace), *words[1:]])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_checkpoint_gets_the_scores_it_had_in_training(workspace, capsys):
    code, out, _ = _ask(capsys, workspace, "eval", "1@latest", "2@latest", "1@base", "--json")
    assert code == 0
    results = json.loads(out)
    for run, result in zip((1, 2), results, strict=False):
        last = events_of(workspace / "runs" / str(run), "eval")[-1]
        for name in ("eval/loss", "eval/accuracy"):
            assert result["scores"][name] == pytest.approx(last["values"][name], rel=1e-5), name
        in_training = json.loads((workspace / "runs" / str(run) / last["folder"] / "result.json").read_text())
        for key in ("template", "normalisation"):
            assert result[key] == in_training[key]
        assert result["data"]["key"] == in_training["data"]["key"]
        assert (result["run"], result["step"], result["source"]) == (run, last["step"], "eval")
        folder = Path(result["folder"])
        assert folder.parent == workspace / "runs" / str(run) / "evaluations"
        assert folder.name.startswith(f"step-{last['step']:08d}-validation-")
        before = [p.fields for p in evaluation_folder.read_predictions(workspace / "runs" / str(run) / last["folder"])]
        for ours, theirs in zip([p.fields for p in evaluation_folder.read_predictions(folder)], before, strict=True):
            assert (ours["key"], ours["label"]) == (theirs["key"], theirs["label"])
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    base = results[2]
    assert base["run"] is None and Path(base["folder"]).parent == workspace / "evaluations"
    first = events_of(workspace / "runs" / "1", "eval")[0]
    assert base["scores"]["eval/loss"] == pytest.approx(first["values"]["eval/loss"], rel=1e-5)


def test_a_file_is_scored_with_examples_in_the_prompt(workspace, capsys):
    (workspace / "score.py").write_text("import sys; print('{\"count\":', len(list(sys.stdin)), '}')")
    words = ("--data", str(workspace / "test.csv"), "--metrics", "exact_match,accuracy", "--max-new-tokens", "5")
    words += ("--command", f"{sys.executable} {workspace / 'score.py'}")
    code, out, err = _ask(capsys, workspace, "eval", "1@base", *words, "--shots", "3", "--classify", "generate")
    assert code == 0, err
    assert "3 examples of test.csv" in out and "3 examples in every prompt, seed 0" in out
    assert "scored by" in out and "score.py" in out and "count" in out
    assert "normalisation case" in out and "labels: the label it writes" in out
    (folder,) = (workspace / "evaluations").glob("*test-3shot*")
    result = json.loads((folder / "result.json").read_text())
    assert result["scores"]["eval/count"] == 3 and str(workspace / "score.py") in result["command"]["files"]
    assert result["generation"]["shots"] == 3 and result["data"]["files"][0]["path"].endswith("test.csv")
    lines = [p.fields for p in evaluation_folder.read_predictions(folder)]
    assert [line["prompt"] for line in lines] == ["apple number 99", "月亮 number 98", "apple number 97"]
    assert all(line["text"] is not None and line["tokens"] < 12 for line in lines)  # the loss is on the answer alone


def test_what_became_of_each_row_is_told_as_in_the_plan(workspace, capsys, tmp_path):
    rows = [{"prompt": "apple number 5", "completion": "fruit"}, {"prompt": "apple number 6"}, {"prompt": "a" * 300}]
    rows += [{"prompt": "say it all " * 40, "completion": "moon"}, {"prompt": "月亮 number 7", "completion": "sky"}]
    rows[2]["completion"] = "fruit"
    path = write_jsonl(
        tmp_path / "mixed.jsonl", rows + [{"prompt": f"apple {n}", "completion": "fruit"} for n in range(40)]
    )
    code, out, err = _ask(capsys, workspace, "eval", "1@latest", "--data", str(path), "--metrics", "loss")
    assert code == 0, err
    config = read_run(workspace / "runs" / "1").config.replace({"data.files": [str(path)], "data.val_fraction": 0.0})
    planned = prepare(config, ModelCache().template(find_model_refs(Workspace(workspace), ["1@latest"])[0])).report
    words = [line.replace("train: ", "eval: ") for line in data_warnings(planned, more="`finetop data check`")]
    assert any(line.startswith("3 rows are left out: 1 ") for line in words), words
    assert [line for line in words if line not in out.splitlines()] == []
    assert "45 rows: 44 read, 1 bad" in out
    code, out, err = _ask(capsys, workspace, "eval", "1@latest", "--data", str(path), "--metrics", "loss", "--json")
    (result,) = json.loads(out)
    assert result["data"]["rows"] == planned["rows"] and result["data"]["problem_counts"] == planned["problem_counts"]
    assert len(read_prompts(path)) == 44
    assert "1 row is left out: 1 " in capsys.readouterr().err


def test_flags_that_refusals_of_data_name_are_those_of_eval_too(capsys):
    """Each hint of what reads data is of use where data is evaluated on, not only where it is trained on."""
    texts = [path.read_text("utf-8") for path in (Path(formats.__file__).parent).glob("*.py")]
    named = {flag for text in texts for flag in re.findall(r"--[a-z]+(?:-[a-z]+)*", text)} | {"--max-length"}
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    assert sorted(named - set(re.findall(r"--[a-z-]+", capsys.readouterr().out))) == []


def test_two_adapters_of_one_name_keep_an_evaluation_each(workspace, capsys, tmp_path):
    source = (workspace / "runs" / "1" / "checkpoints" / "latest").resolve()
    copies = [str(shutil.copytree(source, tmp_path / place / "mine")) for place in ("here", "there")]
    words = ("--data", str(workspace / "test.csv"), "--metrics", "accuracy", "--classify", "likelihood")
    code, _, err = _ask(capsys, workspace, "eval", *copies, *words)
    assert code == 0, err
    folders = sorted((workspace / "evaluations").glob("mine-test-*"))
    assert {json.loads((folder / "result.json").read_text())["model"] for folder in folders} == set(copies)


def test_answers_stand_side_by_side(workspace, capsys, tiny_model, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    models = ("1@latest", "2@latest", "base")
    code, out, _ = _ask(capsys, workspace, "sample", *models, "--prompt", "月亮 number 3", "--max-new-tokens", "5")
    assert code == 0
    lines = out.rstrip().splitlines()
    assert lines[0] == "» 月亮 number 3" and [part.strip() for part in lines[1].split("│")] == list(models)
    assert all(cells(line) <= 80 for line in lines)
    words = ("--prompt", "月亮 number 3", "--prompt", "apple number 4", "--max-new-tokens", "5", "--json")
    code, out, _ = _ask(capsys, workspace, "sample", "2@latest", str(tiny_model), "2@latest", *words)
    said = json.loads(out)
    assert [row["prompt"] for row in said["samples"]] == ["月亮 number 3", "apple number 4"]
    assert [row["answers"]["2@latest"] for row in said["samples"]] == ["sky", "fruit"]
    assert [row["answers"]["2@latest (3)"] for row in said["samples"]] == ["sky", "fruit"], "asked for twice"
    assert set(said["samples"][0]["answers"]) == {"2@latest", str(tiny_model), "2@latest (3)"}


def test_answers_to_fixed_prompts_are_browsed_over_the_run(workspace, capsys):
    code, out, _ = _ask(capsys, workspace, "samples", "1", "--prompt", "2", "--json")
    (said,) = json.loads(out)
    steps = [event["step"] for event in events_of(workspace / "runs" / "1", "eval")]
    assert code == 0 and said["prompt"] == "Say apple." and [one["step"] for one in said["answers"]] == steps
    code, out, _ = _ask(capsys, workspace, "samples", "1")
    assert out.splitlines()[0] == "» Where is 月亮?" and out.count("step 0 ") == 2
    code, _, err = _ask(capsys, workspace, "samples", "1", "--prompt", "3")
    assert code == 2 and "prompts 1 to 2" in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("eval", "base", "--data", "x.csv"), "'base' of which run?"),
        (("eval", "1@best", "--metrics", "blue"), "there is no metric 'blue'"),
        (("eval", "1@7777"), "run 1 has no checkpoint '7777'"),
        (("eval", "./nowhere"), "there is no model folder ./nowhere"),
        (("eval", "1@best", "--metrics", "json_schema"), "needs a schema"),
        (("sample", "1@best"), "nothing to ask"),
        (("sample", "1@best", "--prompt", "a", "--temperature", "-1"), "must be at least 0"),
        (("samples", "9"), "there is no run 9"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_loaded(workspace, capsys, words, complaint):
    code, _, err = _ask(capsys, workspace, *words)
    assert code == 2 and complaint in err


def test_a_damaged_checkpoint_is_refused_by_the_worker_in_words(workspace, capsys, tmp_path):
    source = (workspace / "runs" / "1" / "checkpoints" / "latest").resolve()
    copy = tmp_path / source.name
    copy.mkdir()
    for file in source.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = copy / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    code, _, err = _ask(capsys, workspace, "sample", str(copy), "--prompt", "a")
    assert code == 1 and "adapter_model.safetensors is damaged" in err and "Traceback" not in err


def test_targets_know_their_run_step_and_base(workspace, tiny_model, tmp_path):
    home = Workspace(workspace)
    lora, full, base = find_model_refs(home, ["1@latest", "2@latest", "base"])
    assert (lora.base, Path(lora.adapter).parent.parent.name) == (str(tiny_model), "1")
    assert full.adapter == "" and Path(full.base).parent.parent.name == "2"
    assert (base.base, base.run, base.step) == (str(tiny_model), 1, None)
    (by_folder,) = find_model_refs(home, [lora.adapter])
    assert (by_folder.run, by_folder.step, by_folder.base) == (1, lora.step, lora.base)
    shutil.copytree(lora.adapter, tmp_path / "the-best-one")
    (copied,) = find_model_refs(home, [str(tmp_path / "the-best-one")])
    assert (copied.run, copied.step, copied.base) == (None, lora.step, lora.base)
    (hub,) = find_model_refs(home, ["Qwen/Qwen2.5-0.5B"])
    assert (hub.base, hub.run) == ("Qwen/Qwen2.5-0.5B", None)


def test_prompts_are_read_from_text_bare_rows_and_data_files(tmp_path, chats):
    lines = tmp_path / "p.txt"
    lines.write_text("one\n\n 二 \n", "utf-8")
    assert [m[-1]["content"] for m in read_prompts(lines)] == ["one", "二"]
    bare = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a"}, {"messages": [{"role": "user", "content": "b"}]}])
    assert [m[-1]["content"] for m in read_prompts(bare)] == ["a", "b"]
    found = read_prompts(chats)
    assert len(found) == 36 and all(messages[-1]["role"] == "user" for messages in found)
    with pytest.raises(InputError, match="No such file"):
        read_prompts(tmp_path / "none.txt")


def test_long_and_chinese_answers_wrap_by_cells():
    assert wrap("今天是晴天，适合出门散步。", 8) == ["今天是晴", "天，适合", "出门散步", "。"]
    assert wrap("the river is long", 9) == ["the river", "is long"]
    assert wrap("a" * 20, 8) == ["a" * 8, "a" * 8, "a" * 4]
    assert wrap("red\x1b[31m", 20) == ["red\\x1b[31m"]
    lines = side_by_side("问", ["41@best", "base"], ["晴 " * 40, "short"], 80)
    assert all(cells(line) <= 80 for line in lines) and lines[1].startswith("41@best")
    stacked = side_by_side("q", ["a", "b", "c", "d"], ["x y z " * 20] * 4, 80)
    assert all(cells(line) <= 80 for line in stacked) and stacked.count("  d") == 1
