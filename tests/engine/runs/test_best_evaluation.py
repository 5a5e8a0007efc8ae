"""Which evaluation of a run is its best: what counts is the user's to say, and a run that got worse is said to have."""

import io
import json
import os
import sqlite3
import sys

import pytest
from sqlite_utils import Migrations

from engine.base.errors import ConfigError, InputError
from engine.base.worker_process import DONE, STOPPED
from engine.base.workspace import Workspace
from engine.cli.commands import eval as cli_eval
from engine.cli.commands import sample as cli_sample
from engine.cli.main import main
from engine.cli.watch_run import Watcher
from engine.compare.comparison import compare
from engine.metrics.best_evaluation import Best, Criterion, parse
from engine.models.model_name import ADAPTER
from engine.present.comparison_sections import subject_text
from engine.runs import evaluation_folder
from engine.runs.checkpoints import link, path_of, steps, untrained_note
from engine.runs.journal import NAME
from engine.runs.run_folder import create_run, write_config
from engine.settings.resolve import Layer, read_run, resolve
from engine.store import queries, queue, rebuild, schema
from engine.store.connect import reader, writer
from engine.store.journal_import import import_journal
from engine.store.run_records import NewRun
from engine.worker.runtime.train_state import TrainState
from engine.worker.train.loop import train
from tests.engine.store.storekit import line, metric, write
from tests.engine.tiny_runs import NeverStop, StopAfter, events_of, make_run, write_jsonl

TEXT = "{:.3f}".format


@pytest.mark.parametrize(
    ("text", "key", "lower"),
    [
        ("loss", "eval/loss", True),
        ("macro_f1", "eval/macro_f1", False),
        ("eval/macro_f1:max", "eval/macro_f1", False),
        ("accuracy:min", "eval/accuracy", True),
        ("loss@web", "eval/loss@web", True),
        ("toxicity:min", "eval/toxicity", True),
    ],
)
def test_a_criterion_is_a_metric_and_a_direction(text, key, lower):
    assert parse(text) == Criterion(key, lower)
    assert parse(parse(text).text) == parse(text)


@pytest.mark.parametrize("text", ["", "toxicity", ":max", "loss:best", "loss:"])
def test_a_metric_of_no_known_direction_needs_one(text):
    with pytest.raises(ValueError, match=r"must be|direction"):
        parse(text)


@pytest.mark.parametrize(
    ("by", "start", "value", "step", "brief", "words"),
    [
        ("loss", 3.073, 8.72, 30, "3.073 at 0", "3.073 at its start, never better"),
        ("loss", 3.073, 3.073, 30, "3.073 at 0", "3.073 at its start, never better"),
        ("loss", 6.469, None, None, "", "6.469 at its start, not evaluated since"),
        ("loss", 3.073, 0.5, 1200, "0.500", "0.500 at step 1,200"),
        ("loss", None, 8.72, 30, "8.720", "8.720 at step 30"),
        ("loss", None, None, None, "", ""),
        ("accuracy", 0.9, 0.2, 30, "0.900 at 0", "0.900 at its start, never better"),
        ("accuracy", 0.2, 0.9, 30, "0.900", "0.900 at step 30"),
    ],
)
def test_a_run_that_got_worse_is_told_from_one_that_did_not(by, start, value, step, brief, words):
    found = Best(parse(by), value, step, start)
    assert (found.brief(TEXT), found.words(TEXT)) == (brief, words)


def test_what_counts_must_be_measured():
    def problems(**changes):
        values = {"data.files": ["x"]} | {key.replace("__", "."): value for key, value in changes.items()}
        try:
            resolve([Layer("test", values)])
        except ConfigError as error:
            return str(error)
        return ""

    assert not problems(eval__best="loss:min") and not problems(eval__best="macro_f1", eval__metrics=["macro_f1"])
    assert "not measured" in problems(eval__best="macro_f1")
    assert "not measured" in problems(eval__best="toxicity:min")
    assert "direction" in problems(eval__best="toxicity", eval__command="score")
    assert not problems(eval__best="toxicity:min", eval__command="score")
    assert "not among eval.metrics" in problems(eval__best="macro_f1:max", eval__command="score")
    assert "validation data" in problems(eval__best="perplexity", data__val_fraction=0.0)
    assert "needs answers" in problems(method__objective="pretrain", eval__command="score")


# --- the store, and what commands say of it -----------------------------------------------------------------------


def evaluated(step, loss, **scores):
    values = {"eval/loss": loss} | {f"eval/{name}": value for name, value in scores.items()}
    return line("eval", 1000.0 + step, step=step, values=values)


def made(workspace: Workspace, *lines: bytes, data: str = "d.jsonl", end: str = "done", **settings) -> int:
    """A run in the store and its folder, by what its worker wrote."""
    values = {"data.files": [data], "eval.metrics": ["accuracy", "macro_f1"]}
    values |= {key.replace("__", "."): value for key, value in settings.items()}
    resolved = resolve([Layer("test", values)])
    run_id, folder = create_run(workspace, resolved)
    plan = line("plan", 1000.0, total_steps=30, settings=resolved.config.flat())
    lines = [plan, line("resume", 1000.0, from_step=-1), *lines, line("state", 1100.0, state=end, step=30)]
    write(folder, line("state", 999.0, state="starting"), *lines)
    conn = writer(workspace.database)
    queue.add(conn, NewRun(name=f"run {run_id}", settings=resolved.config.flat(), data=data), run_id)
    import_journal(conn, run_id, folder, whole_history=True)
    conn.close()
    return run_id


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    monkeypatch.setenv("FINETOP_WORKSPACE", str(tmp_path / "w"))
    monkeypatch.setenv("COLUMNS", "160")
    return Workspace(tmp_path / "w")


@pytest.fixture
def told(workspace, capsys):
    def run(*words, code=0):
        found = main(list(map(str, words)))
        out, err = capsys.readouterr()
        assert found == code, out + err
        return " ".join((out + err).split())

    return run


def test_a_run_that_got_worse_says_so_and_ranks_by_what_training_made(workspace, told):
    good = made(workspace, evaluated(0, 3.073), metric(10, loss=2.0), evaluated(10, 2.5), evaluated(20, 2.0))
    worse = made(
        workspace,
        evaluated(0, 1.073, accuracy=0.875),
        metric(10, loss=9.0),
        evaluated(10, 9.5, accuracy=0.25),
        evaluated(30, 8.72, accuracy=0.125),
        line("checkpoint", step=0, path="checkpoints/step-00000000", bytes=1, kept=["latest", "best"]),
        line("checkpoint", step=30, path="checkpoints/step-00000030", bytes=1, kept=["latest"]),
    )
    early = made(workspace, evaluated(0, 0.469), metric(3, loss=0.5), end="stopped")
    conn = reader(workspace.database)
    runs = {run.id: run for run in queries.list_runs(conn)}
    assert (runs[worse].best_eval, runs[worse].best_eval_step, runs[worse].start_eval) == (8.72, 30, 1.073)
    assert [run.best.improved for run in (runs[good], runs[worse], runs[early])] == [True, False, None]
    assert [run.id for run in queries.list_runs(conn, "", "eval")] == [good, worse, early]
    assert queries.standing(conn, runs[good]) == (1, 2) and queries.standing(conn, runs[worse]) == (2, 2)
    assert queries.standing(conn, runs[early]) == (0, 2)
    assert queries.rival(conn, runs[worse]).id == good and queries.rival(conn, runs[good]).id == worse
    conn.close()

    for words in (("ls",), ("history",), ("history", "--markdown")):
        assert "1.073 at 0" in told(*words) and "0.469" not in told(*words)
        assert "87.5% at 0" in told(*words), "a score that fell is no result of the run either"
    shown = told("show", worse)
    assert "eval loss 8.72 1.073 at its start, never better" in shown
    assert "accuracy 0.125 0.875 at its start, never better" in shown
    assert "best-is-untrained" in shown and "latest best" not in shown
    assert "eval loss 0.469 at its start, not evaluated since" in told("show", early)
    assert "eval loss 2 best 2 at step 20" in told("show", good)
    listed = {run["id"]: run for run in json.loads(told("history", "--json"))}
    assert [listed[run]["improved"] for run in (good, worse, early)] == [True, False, None]
    assert [listed[run]["score"] for run in (worse, early)] == [0.25, None]

    watcher = Watcher(worse, workspace.runs / str(worse), earlier=0, out=io.StringIO())
    watcher.read()
    assert watcher._conclude(0) == 0
    assert "made it no better: eval loss 1.073 at its start, never better" in watcher._line._out.getvalue()

    found = compare(workspace, [str(good), str(worse)])
    assert subject_text(found.subjects[1]).endswith("eval loss 1.073 at its start, never better")
    row = next(row for row in found.results[0].rows if row.key == "eval/loss")
    assert row.values == (2.0, 8.72) and row.best == 0
    assert found.diagnoses[1][0].finding == "no better"
    assert "never better" in told("compare", good, worse)
    named = compare(workspace, [str(good), f"{worse}@best", f"{worse}@0", f"{worse}@30"])
    assert [one.no_better != "" for one in named.subjects] == [False, True, False, False]
    assert "never better" in subject_text(named.subjects[1])


def test_whoever_names_an_untrained_checkpoint_is_told(workspace, told, capsys, monkeypatch):
    """The best of a run that never got better, and step 0 by any other name: wherever one is loaded or started from."""
    workspace.root.mkdir()
    data = write_jsonl(workspace.root / "d.jsonl", [{"prompt": "a", "completion": "b"}])
    run_id = made(workspace, evaluated(0, 1.0), evaluated(3, 2.0), end="stopped", data=str(data))
    place = workspace.runs / str(run_id) / "checkpoints"
    for step in (0, 3):
        folder = path_of(place, step)
        folder.mkdir(parents=True)
        (folder / ADAPTER).write_text('{"r": 16}')
        (folder / "manifest.json").write_text(json.dumps({"step": step, "config": {}}))
        event = {"path": f"checkpoints/{folder.name}", "bytes": 1, "kept": ["latest", *([] if step else ["best"])]}
        write(place.parent, line("checkpoint", step=step, **event))
    link(place, "best", 0)
    link(place, "latest", 3)
    monkeypatch.setattr(cli_eval, "ask_worker", lambda request: iter(()))
    monkeypatch.setattr(cli_eval, "_print", lambda results: None)
    monkeypatch.setattr(cli_sample, "ask_worker", lambda request: iter([{"index": i, "texts": ["x"]} for i in (0, 1)]))
    untrained, never = "untrained weights of step 0", "they are its best"
    for words in (["eval"], ["sample", "--prompt", "x"]):
        said = told(words[0], f"{run_id}@best", f"{run_id}@latest", *words[1:])
        assert f"{run_id}@best: these are the {untrained}" in said and never in said
        assert said.count(untrained) == 1
    assert untrained in told("eval", place / "step-00000000") and untrained not in told("eval", f"{run_id}@base")
    assert untrained in told("fork", f"{run_id}@best") and untrained not in told("fork", f"{run_id}@3")
    assert untrained in told("resume", f"{run_id}@0")
    link(place, "best", 3)
    assert untrained_note(path_of(place, 0)) and never not in untrained_note(path_of(place, 0))


def test_what_a_store_of_an_older_version_called_best_is_put_right(tmp_path):
    path = tmp_path / "runs.db"
    conn = sqlite3.connect(path, isolation_level=None)
    older = Migrations("finetop")
    older._migrations = list(schema.MIGRATIONS._migrations[:1])
    schema.migrate(conn, path, older)
    conn.execute("INSERT INTO metric_keys(id, key) VALUES (1, 'eval/loss')")
    for run_id, values in ((1, {0: 3.0, 10: 9.5, 20: 8.5, 30: None}), (2, {0: 3.0, 10: 2.0}), (3, {0: 6.0}), (4, {})):
        low = min((value, step) for step, value in values.items() if value is not None) if values else (None, None)
        conn.execute(
            "INSERT INTO runs(id, state, position, created, best_eval, best_eval_step) VALUES (?, 'done', 0, 0, ?, ?)",
            (run_id, *low),
        )
        conn.execute("INSERT INTO metric_summary(id, run_id, key_id) VALUES (?, ?, 1)", (run_id, run_id))
        conn.executemany("INSERT INTO points VALUES (?, ?, ?)", [(run_id, *point) for point in values.items()])
    conn.close()
    runs = {run.id: run for run in queries.list_runs(writer(path))}
    assert [(runs[n].start_eval, runs[n].best_eval, runs[n].best_eval_step) for n in (1, 2, 3, 4)] == [
        (3.0, 8.5, 20), (3.0, 2.0, 10), (6.0, None, None), (None, None, None)
    ]  # fmt: skip
    assert runs[1].best.words(TEXT) == "3.000 at its start, never better"


def test_the_metric_of_eval_best_rules_lists_ranks_and_comparisons(workspace, told):
    by = {"eval__best": "accuracy"}
    start = evaluated(0, 3.0, accuracy=0.1)
    low = made(workspace, start, evaluated(10, 0.5, accuracy=0.9), evaluated(20, 0.4, accuracy=0.5), **by)
    high = made(workspace, start, evaluated(10, 2.5, accuracy=0.7), evaluated(20, 2.4, accuracy=0.95), **by)
    other = made(workspace, evaluated(0, 3.0), evaluated(10, 0.1))
    conn = reader(workspace.database)
    runs = {run.id: run for run in queries.list_runs(conn)}
    assert (runs[low].best_by, runs[low].best_eval, runs[low].best_eval_step) == ("accuracy:max", 0.9, 10)
    assert [run.id for run in queries.list_runs(conn, "", "eval")] == [other, high, low]
    assert [run.id for run in queries.list_runs(conn, "", "eval", descending=True)] == [other, low, high]
    assert queries.standing(conn, runs[low]) == (2, 2) and queries.standing(conn, runs[other]) == (1, 1)
    assert queries.rival(conn, runs[low]).id == high and queries.rival(conn, runs[other]) is None
    conn.close()
    assert "best eval" in told("history") and "0.9@10 accuracy" in told("history")
    assert "best by highest accuracy: 0.9 at step 10" in told("show", low)
    found = compare(workspace, [str(low), str(high)])
    assert found.results[0].title == "at their best (highest accuracy)"
    assert [subject.step for subject in found.subjects] == [10, 20]


_EVALUATIONS = ((0, 3.0, 0), (10, 1.0, 3), (20, 2.0, 9), (30, 2.5, 9))
"""Step, eval loss, right answers of ten."""


def test_best_chosen_anew_is_journalled_so_that_a_rebuilt_store_knows(workspace, told):
    lines = []
    for step, loss, _ in _EVALUATIONS:
        kept = ["latest", *(["best"] if step in (0, 10) else [])]
        path = f"checkpoints/step-{step:08d}"
        lines += [evaluated(step, loss), line("checkpoint", 1000.0 + step, step=step, path=path, bytes=1, kept=kept)]
    run_id = made(workspace, *lines, eval__metrics=[])
    folder = workspace.runs / str(run_id)
    for step, loss, right in _EVALUATIONS:
        texts = ["yes" if n < right else "no" for n in range(10)]
        rows = [{"key": str(n), "reference": "yes", "text": text, "scores": {}} for n, text in enumerate(texts)]
        result = {"scores": {"eval/loss": loss}, "normalisation": "case"}
        evaluation_folder.write(folder / "evaluations", evaluation_folder.step_name(step), result, rows)
        if step != 20:
            (folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    said = told("checkpoints", run_id, "--best", "exact_match")
    assert "highest exact_match: 0.9 at step 20, whose checkpoint is not kept; of those" in said
    assert os.readlink(folder / "checkpoints" / "best") == "step-00000030"
    for _ in range(2):
        conn = reader(workspace.database)
        run = queries.run(conn, run_id)
        assert (run.best_by, run.best_eval, run.best_eval_step) == ("exact_match:max", 0.9, 20)
        assert [c.step for c in queries.checkpoints(conn, run_id) if "best" in c.kept] == [30]
        assert queries.series(conn, run_id)["eval/exact_match"].count == 4 and run.step == 30
        assert {value.key: value.value for value in queries.settings(conn, run_id)}["eval.best"] == "exact_match:max"
        conn.close()
        rebuild.rebuild(workspace.root)
    assert "nor predictions" in told("checkpoints", run_id, "--best", "macro_f1", code=2)
    assert "direction" in told("checkpoints", run_id, "--best", "niceness", code=2)
    told("checkpoints", run_id, "--best", "loss")
    assert os.readlink(folder / "checkpoints" / "best") == "step-00000010"


def test_a_checkpoint_of_an_older_version_keeps_its_best():
    saved = {"step": 6, "tokens": 1, "best_loss": 1.5, "best_step": 3, "evals_without_better": 1}
    assert (TrainState.restored(saved).best_value, TrainState.restored(saved).best_step) == (1.5, 3)
    assert TrainState.restored(saved | {"best_loss": float("inf")}).best_value is None


# --- in training --------------------------------------------------------------------------------------------------

_SCORER = """
import json, sys
lines = [json.loads(line) for line in sys.stdin]
assert lines and all(isinstance(line["text"], str) and line["reference"] for line in lines)
print("some library says hello")
letters = sum(len(set(line["text"]) & set(line["reference"])) / len(set(line["reference"])) for line in lines)
print(json.dumps({"letters": letters / len(lines), "answers": len(lines), "unknown": None}))
"""


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    rows = [{"prompt": f"say {n}", "completion": f"yes sir {n}"} for n in range(14)]
    for folder, name, part in (("a", "web", rows[:6]), ("b", "books", rows[6:9])):
        (root / folder).mkdir()
        write_jsonl(root / folder / f"{name}.jsonl", part)
    (root / "score.py").write_text(_SCORER)
    write_jsonl(root / "train.jsonl", rows)
    return root


def _run(root, model, home, **changes):
    settings = {
        "data__val_files": [str(root / "a" / "web.jsonl"), str(root / "b" / "books.jsonl")],
        "eval__metrics": ["exact_match"],
        "eval__command": f"{sys.executable} {root / 'score.py'}",
        "eval__best": "letters:max",
        "eval__max_new_tokens": 8,
        "eval__every": 2,
        "eval__max_examples": 8,
        "method__kind": "full",
    }
    return make_run(home, model, root / "train.jsonl", **(settings | changes))


def test_a_program_scores_the_answers_rules_what_is_best_and_each_source_is_told(two_sources, tiny_model, tmp_path):
    folder = _run(two_sources, tiny_model, tmp_path)
    assert train(folder, stop=StopAfter(4)) == STOPPED
    events = events_of(folder, "eval")
    assert [event["step"] for event in events] == [0, 2, 4]
    for event, (_, _, path) in zip(events, evaluation_folder.of_run(folder), strict=True):
        values, lines = event["values"], [p.fields for p in evaluation_folder.read_predictions(path)]
        assert values["eval/answers"] == 8 and 0 <= values["eval/letters"] <= 1 and "eval/unknown" not in values
        assert [line["source"] for line in lines] == ["web"] * 6 + ["books"] * 3
        for name in ("web", "books"):
            own = [line for line in lines if line["source"] == name]
            loss = sum(line["loss"] for line in own) / sum(line["tokens"] for line in own)
            assert values[f"eval/loss@{name}"] == pytest.approx(loss)
            scores = [line["scores"]["exact_match"] for line in own if line["text"] is not None]
            assert values[f"eval/exact_match@{name}"] == pytest.approx(sum(scores) / len(scores))
        result = json.loads((path / "result.json").read_text())
        assert list(result["command"]["files"]) == [str(two_sources / "score.py")]
    assert events_of(folder, "data")[-1]["val"]["sources"] == {"web": 6, "books": 3}
    letters = [(event["values"]["eval/letters"], -event["step"]) for event in events]
    assert os.readlink(folder / "checkpoints" / "best") == f"step-{-max(letters)[1]:08d}"

    # What best goes by, and the program itself, may change when the run goes on: both are said.
    script = two_sources / "score.py"
    script.write_text(_SCORER + "# another version\n")
    changes = {"eval.best": "loss@books", "train.epochs": 2}
    config = read_run(folder).config.replace(changes)
    write_config(folder, config, {})
    assert train(folder, stop=NeverStop()) == DONE
    script.write_text(_SCORER)
    (again,) = events_of(folder, "best")
    losses = {event["step"]: event["values"]["eval/loss@books"] for event in events_of(folder, "eval")}
    before = min((value, step) for step, value in losses.items() if step <= 4)
    assert again["by"] == "loss@books:min" and again["checkpoint"] == before[1]
    assert os.readlink(folder / "checkpoints" / "best") == f"step-{min((v, s) for s, v in losses.items())[1]:08d}"
    said = [event["message"] for event in events_of(folder, "event") if event["event"] == "command-changed"]
    assert len(said) == 1 and "score.py has changed" in said[0]


def test_early_stopping_goes_by_it_too_and_says_that_training_never_helped(two_sources, tiny_model, tmp_path):
    changes = {"eval__best": "answers:min", "train__early_stopping": 2, "eval__metrics": []}
    folder = _run(two_sources, tiny_model, tmp_path, **changes)
    assert train(folder, stop=NeverStop()) == DONE
    (stop,) = [event for event in events_of(folder, "event") if event["event"] == "early-stop"]
    assert stop["step"] == 4 and "the best is 8.0000 at its start, never better" in stop["message"]
    # Killed between its last save and its last words, it ends where it would have ended.
    events = [line for line in (folder / NAME).read_text("utf-8").splitlines(True) if "early-stop" not in line]
    (folder / NAME).write_text("".join(events[:-1]), "utf-8")
    assert train(folder, stop=NeverStop()) == DONE
    (again,) = [event for event in events_of(folder, "event") if event["event"] == "early-stop"]
    assert (again["step"], again["message"]) == (4, stop["message"])
    assert [event["step"] for event in events_of(folder, "metric")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('no grader here')", "ended with status 1: no grader here"),
        ("print('{}')", "eval.best is letters:max, but no letters was measured"),
    ],
)
def test_a_program_that_fails_at_the_first_evaluation_refuses_the_run(code, words, two_sources, tiny_model, tmp_path):
    (tmp_path / "bad.py").write_text(code)
    folder = _run(two_sources, tiny_model, tmp_path, eval__command=f"{sys.executable} {tmp_path / 'bad.py'}")
    with pytest.raises(InputError, match=words):
        train(folder)
    assert not events_of(folder, "metric") and not steps(folder / "checkpoints")


def test_a_program_that_fails_later_costs_its_numbers_only(two_sources, tiny_model, tmp_path):
    flag = tmp_path / "once"
    code = f"import os, sys\nif os.path.exists({str(flag)!r}): sys.exit('gone')\nopen({str(flag)!r}, 'w')\n" + _SCORER
    (tmp_path / "flaky.py").write_text(code)
    command = f"{sys.executable} {tmp_path / 'flaky.py'}"
    folder = _run(two_sources, tiny_model, tmp_path, eval__command=command, train__max_steps=2)
    assert train(folder, stop=NeverStop()) == DONE
    first, last = events_of(folder, "eval")
    assert "eval/letters" in first["values"] and "eval/letters" not in last["values"] and "eval/loss" in last["values"]
    (failed,) = [event for event in events_of(folder, "event") if event["event"] == "command-failed"]
    assert "status 1: gone" in failed["message"]


def test_plain_text_has_its_sources_too(tiny_model, tmp_path):
    for name, text in (("river", "The river is long. "), ("晴天", "今天是晴天，适合出门散步。")):
        (tmp_path / f"{name}.txt").write_text(text * 60, "utf-8")
    files = [str(tmp_path / "river.txt"), str(tmp_path / "晴天.txt")]
    folder = make_run(
        tmp_path, tiny_model, tmp_path / "river.txt", method__objective="pretrain", data__files=files,
        data__val_files=files, train__max_steps=1, eval__best="loss@晴天",
    )  # fmt: skip
    assert train(folder, stop=NeverStop()) == DONE
    values = events_of(folder, "eval")[-1]["values"]
    assert {"eval/loss@river", "eval/loss@晴天"} <= values.keys() and values["eval/loss@river"] != values[
        "eval/loss@晴天"
    ]
