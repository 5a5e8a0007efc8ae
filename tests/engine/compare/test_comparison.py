"""Runs side by side: the right figure at the right moment, from the store or from the folders, and fair warnings."""

import json
import math
import os

import pytest

from engine.base.errors import InputError
from engine.base.workspace import Workspace
from engine.compare.comparison import compare
from engine.compare.significance import with_evidence
from engine.present import comparison_report
from engine.present.comparison_sections import sections
from engine.store import connect, queue
from engine.store.gpu_samples import add_gpu_readings
from engine.store.rebuild import rebuild
from engine.store.run_records import GpuReading
from tests.engine.compare.comparekit import DATA, evaluation, judged, predictions, run
from tests.engine.store.storekit import line, write


@pytest.fixture(params=["store", "folders"])
def workspace(tmp_path, request):
    """Everything holds whether runs.db has the runs or only their folders do."""
    made = Workspace(tmp_path)
    made_from = request.param

    class Filled:
        def compare(self, *names, **options):
            if made_from == "store":
                rebuild(tmp_path)
            return compare(made, names, **options)

        root = tmp_path

    return Filled()


def row(comparison, moment, key):
    table = next(table for table in comparison.results if table.moment == moment)
    return next(row for row in table.rows if row.key == key)


def test_results_are_taken_at_best_and_at_the_same_step_tokens_and_time(workspace):
    # B is best at step 80 of 120, sees twice the tokens and takes half the time a step.
    run(workspace.root, 1, steps=200, evaluation=lambda step: 3 - step / 100, every=20)
    run(
        workspace.root,
        2,
        steps=120,
        evaluation=lambda step: 1 + abs(step - 80) / 100,
        every=20,
        tokens=200,
        seconds=0.5,
    )
    found = workspace.compare("1", "2")
    best = row(found, "best", "eval/loss")
    assert best.values == pytest.approx((1.0, 1.0)) and best.steps == (200, 80)
    step = row(found, "step", "eval/loss")
    assert step.steps == (120, 120) and step.values == pytest.approx((1.8, 1.4))
    assert step.differences == (None, pytest.approx(-0.4)) and step.best == 1
    tokens = row(found, "tokens", "eval/loss")  # 20,000: step 200 of A, 100 of B
    assert tokens.steps == (200, 100) and tokens.values == pytest.approx((1.0, 1.2))
    time = row(found, "time", "eval/loss")  # 60 s: step 60 of A, all 120 of B
    assert time.steps == (60, 120) and time.values == pytest.approx((2.4, 1.4))
    assert found.costs[0].seconds == pytest.approx(200) and found.costs[1].seconds == pytest.approx(60)
    assert [cost.tokens for cost in found.costs] == [20_000, 24_000]


def test_evaluations_at_uneven_steps_meet_at_the_last_common_one(workspace):
    run(workspace.root, 1, steps=100, every=20)
    run(workspace.root, 2, steps=100, every=30)
    assert row(workspace.compare("1", "2"), "step", "eval/loss").steps == (60, 60)


def test_a_checkpoint_is_seen_as_it_was_when_it_was_saved(workspace):
    run(workspace.root, 1, steps=200, saved=[60, 200])
    found = workspace.compare("1", "1@60", "1@latest")
    assert [subject.step for subject in found.subjects] == [200, 60, 200]
    assert row(found, "best", "eval/loss").steps == (200, 60, 200)
    assert row(found, "step", "eval/loss").steps == (60, 60, 60)
    curve = found.curves["train/loss"][1]
    assert curve.columns[-1].first_step <= 60 and curve.high_x == found.curves["train/loss"][0].high_x
    assert found.costs[1].tokens == 6_000


def test_time_at_work_leaves_pauses_out(workspace):
    folder = run(workspace.root, 1, steps=40, end="stopped")
    write(folder, line("state", 90_000.0, state="starting", pid=2), line("resume", 90_000.0, from_step=40))
    steps = (line("metric", 90_000.0 + s - 40, step=s, values={"train/loss": 1.0, "train/tokens": s * 100})
             for s in range(41, 61))  # fmt: skip
    write(folder, *steps, line("eval", 90_020.0, step=60, values={"eval/loss": 0.5}),
          line("state", 90_020.0, state="done", step=60))  # fmt: skip
    run(workspace.root, 2, steps=50, every=10)
    found = workspace.compare("1", "2")
    assert found.costs[0].seconds == pytest.approx(60)
    assert row(found, "time", "train/tokens").steps == (50, 50)


def test_a_killed_worker_counts_until_its_last_sign(workspace):
    folder = run(workspace.root, 1, steps=40, end=None)
    write(folder, line("state", 50_000.0, state="starting", pid=2), line("resume", 50_000.0, from_step=30))
    write(folder, line("metric", 50_001.0, step=31, values={"train/loss": 1.0, "train/tokens": 3100}),
          line("state", 50_001.0, state="done", step=31))  # fmt: skip
    run(workspace.root, 2, steps=40)
    # Its steps beyond 30 were taken back, and their times with them.
    assert workspace.compare("1", "2").costs[0].seconds == pytest.approx(31)


def test_what_a_run_took_is_what_the_daemon_kept_else_what_readings_tell(tmp_path):
    run(tmp_path, 1)
    run(tmp_path, 2, lines=[line("memory", 1500.0, peak_bytes=5_000, reserved_bytes=7_000)])
    rebuild(tmp_path)
    conn = connect.writer(tmp_path / "runs.db")
    kept = {"gpu_seconds": 7200.0, "energy_joules": 3600.0 * 250, "peak_memory_bytes": 9_000}
    queue.set_meta(conn, "usage:1", json.dumps(kept))
    # 100 W for 60 s, then a gap of an hour, then 200 W for 60 s.
    readings = [(1000.0, 100.0), (1060.0, 100.0), (4660.0, 200.0), (4720.0, 200.0)]
    add_gpu_readings(conn, [GpuReading("GPU-a", t, 2, power_watts=power) for t, power in readings])
    first, second = compare(Workspace(tmp_path), ["1", "2"], conn=conn).costs
    assert (first.gpu_hours, first.energy_wh, first.peak_memory_bytes) == (2.0, 250.0, 9_000)
    assert second.energy_wh == pytest.approx((6000 + 12000) / 3600) and second.peak_memory_bytes == 7_000
    assert second.gpu_hours is None, "it had no GPU that the queue knows of"


def test_only_what_differs_is_listed_with_auto_replaced_by_what_it_stood_for(workspace):
    run(workspace.root, 1, settings={"optim.learning_rate": 1e-4, "lora.r": 8, "run.name": "a"})
    run(workspace.root, 2, settings={"optim.learning_rate": 2e-4, "lora.r": 8, "run.name": "b"})
    settings = workspace.compare("1", "2").settings
    assert [(row.key, row.values) for row in settings] == [("optim.learning_rate", (1e-4, 2e-4))]


def test_seeds_of_one_setting_are_grouped_with_mean_and_spread(workspace):
    for seed, level in enumerate((0.50, 0.54, 0.58)):
        run(workspace.root, seed + 1, evaluation=lambda step, level=level: level, settings={"train.seed": seed})
    run(workspace.root, 4, evaluation=lambda step: 0.4, settings={"train.seed": 0, "lora.r": 64})
    run(workspace.root, 5, evaluation=lambda step: 0.4, settings={"train.seed": 9},
        files=[{"path": "/data/other.csv", "sha256": "00"}])  # fmt: skip
    group = next(g for g in workspace.compare("1", "2", "3", "4", "5").groups if g.key == "eval/loss")
    assert group.members == (0, 1, 2)
    assert group.mean == pytest.approx(0.54) and group.spread == pytest.approx(0.04)
    assert group.sentence == "A, B, C: 3 seeds of one setting, eval/loss 0.54 ± 0.04"


def test_other_validation_data_are_warned_of(workspace):
    run(workspace.root, 1)
    run(workspace.root, 2, settings={"data.val_fraction": 0.2})
    run(workspace.root, 3, files=[{**DATA[0], "sha256": "cd" * 32}])
    assert workspace.compare("1", "1").warnings == ()
    (said,) = workspace.compare("1", "2").warnings
    assert said.startswith("The validation data differ (A: 500 examples, 0.1 of train.csv abababab; B: ")
    changed = workspace.compare("1", "3").warnings
    assert "train.csv has changed between the runs: A abababab, B cdcdcdcd" in changed[1]


def test_other_tokens_and_templates_are_warned_of(workspace):
    run(workspace.root, 1, settings={"data.max_length": 512, "data.template": "auto"})
    run(workspace.root, 2, settings={"data.max_length": 256, "data.template": "mine.jinja"}, supervised=4000)
    run(workspace.root, 3, supervised=4500, settings={"data.max_length": 512})
    cut, template = workspace.compare("1", "2").warnings
    assert "A: 5,000 tokens; B: 4,000 tokens, by data.max_length" in cut
    assert template == "The chat template differs (A: auto; B: mine.jinja)."
    (tokenizer,) = workspace.compare("1", "3").warnings
    assert "by another tokenizer or template" in tokenizer


def test_evaluations_that_were_made_otherwise_are_warned_of(workspace):
    run(workspace.root, 1)
    run(workspace.root, 2)
    judged(workspace.root, 1, 200, predictions([1] * 50))
    judged(workspace.root, 2, 200, predictions([1] * 50), normalisation="none", template="t2",
           generation={"max_new_tokens": 8})  # fmt: skip
    said = " ".join(workspace.compare("1", "2").warnings)
    assert "normalised differently" in said and "generated differently" in said and "chat templates" in said


def test_an_evaluation_of_other_examples_is_not_paired(workspace):
    for number in (1, 2):
        run(workspace.root, number)
        rows = predictions([1] * 50)
        for row_ in rows:
            row_["key"] += number
        judged(workspace.root, number, 200, rows, data={"examples": 50, "key": f"k{number}"})
    found = with_evidence(workspace.compare("1", "2"))
    assert found.evidence == () and any("not paired" in said for said in found.warnings)
    assert "A and B have 0 examples in common: too few to judge." in found.notes
    assert row(found, "evaluation", "exact_match").best is None


def test_a_clear_winner_is_named_in_words(workspace):
    run(workspace.root, 1)
    run(workspace.root, 2)
    judged(workspace.root, 1, 200, predictions([0] * 41 + [1] * 18 + [1] * 441))
    judged(workspace.root, 2, 200, predictions([1] * 41 + [0] * 18 + [1] * 441))
    evidence = with_evidence(workspace.compare("1", "2")).evidence
    said = next(e for e in evidence if e.key == "exact_match")
    assert said.sentence == (
        "exact_match: B is better on 41 of 500 questions, worse on 18: unlikely to be luck, p = 0.0038."
    )
    assert (said.wins, said.losses, said.needed) == (41, 18, None)
    assert said.difference == pytest.approx(23 / 500) and said.low < said.difference < said.high


def test_too_few_examples_say_how_many_would_do(workspace):
    run(workspace.root, 1)
    run(workspace.root, 2)
    judged(workspace.root, 1, 200, predictions([0] * 5 + [1] * 3 + [1] * 42))
    judged(workspace.root, 2, 200, predictions([1] * 5 + [0] * 3 + [1] * 42))
    (loss, match) = with_evidence(workspace.compare("1", "2")).evidence
    assert match.sentence == (
        "exact_match: A and B cannot be told apart with 50 examples (B is better on 5, worse on 3, p = 0.73); about "
        "790 would be needed."
    )
    assert loss.sentence == "eval loss: A and B cannot be told apart with 50 examples: no difference was seen."


def test_of_several_comparisons_p_is_corrected(workspace):
    for number in (1, 2, 3):
        run(workspace.root, number)
        judged(workspace.root, number, 200, predictions([0] * (30 - 10 * number) + [1] * (70 + 10 * number)))
    three = [e for e in with_evidence(workspace.compare("1", "2", "3")).evidence if e.key == "exact_match"]
    alone = [e for e in with_evidence(workspace.compare("1", "2")).evidence if e.key == "exact_match"]
    assert len(three) == 3 and three[0].p == pytest.approx(2 * alone[0].p)
    assert "B is better than A on 10 of 100 questions" in three[0].sentence and "Holm" in three[0].sentence


def test_a_sure_difference_between_seeds_is_called_the_luck_of_training(workspace):
    for number in (1, 2):
        run(workspace.root, number, settings={"train.seed": number})
        judged(workspace.root, number, 200, predictions([0] * (30 - 10 * number) + [1] * (70 + 10 * number)))
    (note,) = with_evidence(workspace.compare("1", "2")).notes
    assert note.startswith(
        "A, B differ in their seed alone, and yet surely in exact_match: that is the luck of training"
    )


def test_losses_are_weighted_by_tokens_and_other_tokens_are_refused(workspace):
    run(workspace.root, 1)
    run(workspace.root, 2)
    first = [2.0 + 0.1 * (i % 7) for i in range(60)]
    judged(workspace.root, 1, 200, predictions([1] * 60, first, tokens=4))
    second = [value - 0.2 - 0.01 * (i % 5) for i, value in enumerate(first)]
    judged(workspace.root, 2, 200, predictions([1] * 60, second, tokens=4))
    loss = with_evidence(workspace.compare("1", "2")).evidence[0]
    assert loss.values[0] == pytest.approx(sum(first) / 240) and loss.difference == pytest.approx(-0.055)
    assert loss.sentence.startswith(
        "eval loss: B is lower by 0.055 (95% interval 0.054 to 0.056) over 60 examples: unlikely"
    )
    run(workspace.root, 3)
    judged(workspace.root, 3, 200, predictions([1] * 60, first, tokens=5))
    found = with_evidence(workspace.compare("1", "3"))
    assert [e.key for e in found.evidence] == ["exact_match"]
    assert any("other tokens" in note for note in found.notes)


def test_an_evaluation_of_the_base_model_can_be_the_baseline(workspace):
    run(workspace.root, 1)
    judged(workspace.root, 1, 200, predictions([1] * 60))
    evaluation(workspace.root / "evaluations" / "starter-3-shot", predictions([0] * 20 + [1] * 40))
    found = with_evidence(workspace.compare("starter-3-shot", "1"))
    assert found.subjects[0].run_id is None and found.subjects[0].title == "starter on test.csv"
    assert next(e for e in found.evidence if e.key == "exact_match").wins == 20
    assert row(found, "evaluation", "exact_match").values == pytest.approx((2 / 3, 1.0))
    assert row(found, "best", "eval/loss").values[0] is None, "what it scored on other examples is no rival"


def test_answers_stand_side_by_side(workspace):
    run(workspace.root, 1, samples={"Is it?": "yes", "Only A": "a"})
    run(workspace.root, 2, samples={"Is it?": "no"})
    first, second = workspace.compare("1", "2@100").answers
    assert (first.prompt, first.reference, first.texts) == ("Is it?", "yes", ("yes 200", "no 100"))
    assert second.texts == ("a 200", None) and second.steps == (200, None)


def test_unfinished_runs_are_compared_and_said_to_be(workspace):
    run(workspace.root, 1)
    run(workspace.root, 2, steps=30, end=None)
    assert row(workspace.compare("1", "2"), "step", "eval/loss").steps == (20, 20)
    # A store made anew calls a run interrupted that no worker has; its folder alone says it is running.
    notes = workspace.compare("1", "2").notes
    assert notes == () or notes == ("B has not finished: running, step 30 of 30.",)


def test_a_run_that_has_logged_nothing_is_compared_too(workspace):
    run(workspace.root, 1)
    write(workspace.root / "runs" / "2", line("state", 1000.0, state="starting", pid=1))
    (workspace.root / "runs" / "2" / "config.json").write_text("{}")
    found = with_evidence(workspace.compare("1", "2"))
    assert row(found, "best", "eval/loss").values[1] is None
    assert sections(found) and comparison_report.markdown(found)


def test_nan_in_the_loss_is_no_value_and_a_diagnosis(workspace):
    run(workspace.root, 1)
    broken = line("metric", 2000.0, step=31, values={"train/loss": None}, nonfinite={"train/loss": "nan"})
    run(workspace.root, 2, steps=30, end="failed", lines=[broken])
    found = workspace.compare("1", "2")
    assert [d.finding.value for d in found.diagnoses[1]][:1] == ["diverging"]
    assert math.isfinite(row(found, "step", "train/loss").values[1])


def test_a_name_that_stands_for_nothing_is_refused_with_what_there_is(workspace):
    run(workspace.root, 1, saved=[60])
    for name, said in (("7", "no run 7"), ("1@epoch-9", "no checkpoint 'epoch-9'"), ("1@900", "not reached step 900"),
                       ("nowhere/at/all", "neither a run"), ("rubbish", "names no checkpoint")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            workspace.compare("1", name)
    with pytest.raises(InputError, match="one thing alone"):
        workspace.compare("1")
    with pytest.raises(InputError, match="too many"):
        workspace.compare(*["1"] * 9)


def test_a_checkpoints_folder_is_that_checkpoint(workspace):
    folder = run(workspace.root, 1, saved=[60])
    (folder / "checkpoints" / "step-00000060").mkdir(parents=True)
    subject = workspace.compare("1", str(folder / "checkpoints" / "step-00000060")).subjects[1]
    assert (subject.run_id, subject.step, subject.is_run) == (1, 60, False)


def test_a_run_that_nobody_imported_any_further_is_read_from_its_folder(tmp_path):
    folder = run(tmp_path, 1, steps=100)
    run(tmp_path, 2, steps=100)
    rebuild(tmp_path)
    write(folder, line("eval", 5000.0, step=120, values={"eval/loss": 0.01}))
    os.utime(folder / "journal.jsonl", (1, 1))
    assert row(compare(Workspace(tmp_path), ["1", "2"]), "best", "eval/loss").values[0] == 0.01


def test_the_cost_of_comparing_does_not_grow_with_the_run(tmp_path):
    """Counted, not timed: SQLite steps through no more of its program for 30 times the points."""
    made = []
    for number, steps in ((1, 700), (2, 700), (3, 21_000), (4, 21_000)):
        run(tmp_path, number, steps=steps, every=steps // 10)
    rebuild(tmp_path)
    for pair in (("1", "2"), ("3", "4")):
        conn = connect.reader(tmp_path / "runs.db")
        ticks = []
        conn.set_progress_handler(lambda ticks=ticks: ticks.append(1) and None, 100)
        compare(Workspace(tmp_path), pair, conn=conn)
        conn.close()
        made.append(len(ticks))
    assert made[1] < 3 * made[0] + 100, made
