"""Charts read few rows, and show what the points say."""

import math
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.store import chart_queries, gpu_samples, queries, queue
from engine.store.connect import writer
from engine.store.journal_import import import_journal
from engine.store.run_records import GpuReading, NewRun, Point
from tests.engine.store.storekit import line, metric, write

COUNT = 20_000


@pytest.fixture(scope="module")
def loss():
    dice = random.Random(0)
    return {step: 10 / math.sqrt(step) + dice.random() / 10 for step in range(1, COUNT + 1)}


@pytest.fixture(scope="module")
def conn(tmp_path_factory, loss):
    """Run 1: a long one with a pause of 1,000 s after step 10,000. Run 2: short, with an evaluation every 200 steps."""
    root = tmp_path_factory.mktemp("store")
    conn = writer(root / "runs.db")
    queue.add_all(conn, [NewRun(), NewRun(), NewRun()])
    write(
        root / "1",
        *(
            metric(step, t=5000.0 + step / 10 + (1000 if step > 10_000 else 0), loss=value, tokens=step * 500)
            for step, value in loss.items()
        ),
    )
    write(root / "2", *(line("eval", step=step, values={"eval/loss": 1 / step}) for step in range(200, 4001, 200)))
    import_journal(conn, 1, root / "1")
    import_journal(conn, 2, root / "2")
    yield conn
    conn.close()


@settings(max_examples=80, deadline=None)
@given(st.integers(1, COUNT), st.integers(1, COUNT), st.integers(1, 300))
@example(1, COUNT, 200)
@example(1, COUNT, 1)
def test_a_chart_of_any_range_holds_exactly_its_points(conn, loss, a, b, columns):
    low, high = min(a, b), max(a, b)
    chart = chart_queries.chart(conn, 1, "train/loss", columns, low=low, high=high)
    there = [loss[step] for step in range(low, high + 1)]
    assert sum(column.count for column in chart.columns) == len(there)
    assert min(column.low for column in chart.columns) == min(there)
    assert max(column.high for column in chart.columns) == max(there)
    total = sum(column.mean * column.count for column in chart.columns)
    assert math.isclose(total, sum(there), rel_tol=1e-9)
    assert len(chart.columns) <= columns
    assert [column.x for column in chart.columns] == sorted(column.x for column in chart.columns)
    for before, after in zip(chart.columns, chart.columns[1:], strict=False):
        assert before.last_step < after.first_step
    for column in chart.columns:
        inside = [loss[step] for step in range(max(column.first_step, low), min(column.last_step, high) + 1)]
        assert (column.low, column.high) == (min(inside), max(inside))


def test_a_chart_reads_o_columns_rows_whatever_the_number_of_points(conn):
    for columns in (50, 200):
        buckets = list(
            chart_queries._cover(conn, chart_queries.span(conn, 1, "train/loss"), 1, COUNT + 1, COUNT / columns)
        )
        assert len(buckets) <= 4 * columns + 40


def test_every_column_of_a_dense_series_is_filled(conn):
    for columns in (10, 97, 200, 640):
        assert len(chart_queries.chart(conn, 1, "train/loss", columns).columns) == columns


def test_a_few_points_are_shown_one_by_one(conn):
    chart = chart_queries.chart(conn, 2, "eval/loss", 200)
    assert [(column.first_step, column.mean) for column in chart.columns] == [
        (step, 1 / step) for step in range(200, 4001, 200)
    ]


def test_the_time_axis_starts_at_the_run_s_first_point_and_shows_its_pauses(conn):
    chart = chart_queries.chart(conn, 1, "train/loss", 100, x="time")
    assert (chart.low_x, round(chart.high_x, 1)) == (0.0, round((COUNT - 1) / 10 + 1000, 1))
    assert sum(column.count for column in chart.columns) == COUNT
    gap = [column for column in chart.columns if 1030 < column.x < 1970]
    assert gap == []
    part = chart_queries.chart(conn, 1, "train/loss", 50, x="time", low=100, high=200)
    assert part.columns[0].first_step >= 990 and part.columns[-1].last_step <= 2010
    assert len(part.columns) >= 40


def test_the_token_axis_reads_the_cumulative_tokens(conn):
    chart = chart_queries.chart(conn, 1, "train/loss", 100, x="tokens")
    assert (chart.low_x, chart.high_x) == (500, COUNT * 500)
    assert abs(chart.columns[50].x / 500 - chart.columns[50].first_step) < COUNT / 100
    assert chart_queries.chart(conn, 2, "eval/loss", 100, x="tokens") is None


def test_the_clock_set_back_does_not_fold_the_time_axis(conn, tmp_path):
    folder = write(
        tmp_path / "3",
        *(metric(step, t=1000.0 + step - (300 if step > 500 else 0), loss=float(step)) for step in range(1, 1001)),
    )
    import_journal(conn, 3, folder)
    chart = chart_queries.chart(conn, 3, "train/loss", 40, x="time")
    means = [column.mean for column in chart.columns]
    assert means == sorted(means) and sum(column.count for column in chart.columns) == 1000


def step_line(step: int, t: float, up: float) -> bytes:
    return line("metric", t, step=step, values={"train/loss": float(step)}, up=up)


@pytest.mark.parametrize("set_by", [-7200, 86_400])
def test_the_time_axis_is_that_of_the_work_although_the_clock_was_set_meanwhile(tmp_path, set_by):
    conn, folder = writer(tmp_path / "runs.db"), tmp_path / "1"
    queue.add(conn, NewRun())
    lines = [line("resume", 5000.0, from_step=-1, up=100.0)]
    lines += [step_line(step, 5000.0 + step + (set_by if step > 700 else 0), 100.0 + step) for step in range(1, 1001)]
    for first, end in ((0, 300), (300, 702), (702, 1001)):  # as it comes in, piece by piece
        write(folder, *lines[first:end])
        import_journal(conn, 1, folder)
    chart = chart_queries.chart(conn, 1, "train/loss", 40, x="time")
    assert chart.high_x - chart.low_x == pytest.approx(999) and len(chart.columns) == 40
    times = [chart_queries.at_step(conn, 1, "time", step).value for step in (1, 700, 701, 1000)]
    assert times == pytest.approx([5000.0 + step + set_by for step in (1, 700, 701, 1000)])


def test_a_worker_after_a_restart_of_the_machine_moves_no_times_of_the_one_before(tmp_path):
    conn, folder = writer(tmp_path / "runs.db"), tmp_path / "1"
    queue.add(conn, NewRun())
    write(folder, line("resume", 5000.0, from_step=-1, up=9000.0), step_line(1, 5001.0, 9001.0))
    import_journal(conn, 1, folder)
    write(folder, line("resume", 6000.0, from_step=1, up=10.0))
    import_journal(conn, 1, folder)
    write(folder, step_line(2, 6001.0, 11.0), step_line(3, 2002.0, 12.0))
    import_journal(conn, 1, folder)
    assert [chart_queries.at_step(conn, 1, "time", step).value for step in (1, 2, 3)] == [5001.0, 2001.0, 2002.0]


def test_nothing_logged_is_none(conn):
    assert chart_queries.chart(conn, 1, "eval/loss", 100) is None
    assert chart_queries.chart(conn, 99, "train/loss", 100) is None
    assert chart_queries.tail(conn, 99, "train/loss", 5) == ()


def test_tail_and_the_value_another_run_had_reached_by_then(conn, loss):
    assert chart_queries.tail(conn, 1, "train/loss", 2) == (
        Point(COUNT - 1, loss[COUNT - 1]),
        Point(COUNT, loss[COUNT]),
    )
    assert chart_queries.at_step(conn, 2, "eval/loss", 1150) == Point(1000, 1 / 1000)
    assert chart_queries.at_step(conn, 2, "eval/loss", 150) is None
    assert queries.series_of_many(conn, [1, 2], "eval/loss")[2].low_step == 4000


def test_a_column_of_nan_alone_is_a_gap(tmp_path):
    conn = writer(tmp_path / "runs.db")
    queue.add(conn, NewRun())
    folder = write(tmp_path / "1", *(metric(step, loss=None if 40 <= step < 60 else 1.0) for step in range(1, 101)))
    import_journal(conn, 1, folder)
    means = [column.mean for column in chart_queries.chart(conn, 1, "train/loss", 10).columns]
    assert means == [1.0] * 4 + [None] * 2 + [1.0] * 4 or means.count(None) in (1, 2)


def test_points_stay_under_thirty_bytes_with_pyramid_time_and_index(tmp_path):
    conn = writer(tmp_path / "runs.db")
    dice = random.Random(1)
    keys = ("loss", "lr", "grad_norm", "tokens_per_s", "step_s", "tokens")
    empty = (tmp_path / "runs.db").stat().st_size
    for run_id in queue.add_all(conn, [NewRun() for _ in range(4)]):
        folder = tmp_path / str(run_id)
        for start in range(0, 2000, 500):  # in pieces, as a live run is imported
            steps = range(start, start + 500)
            write(folder, *(metric(step, **{key: dice.random() for key in keys}) for step in steps))
            import_journal(conn, run_id, folder)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    grown = (tmp_path / "runs.db").stat().st_size - empty
    assert grown / (4 * 2000 * len(keys)) < 30


def test_gpu_readings_are_kept_and_forgotten(tmp_path):
    conn = writer(tmp_path / "runs.db")
    readings = [GpuReading("0", 100.0 + second, 41, 98.0, 1 << 36, 402.0, 71.0) for second in range(10)]
    gpu_samples.add_gpu_readings(conn, readings)
    gpu_samples.add_gpu_readings(conn, readings)
    assert gpu_samples.gpu_readings(conn, gpu="0", since=108.0) == tuple(readings[8:])
    assert gpu_samples.gpu_readings(conn, run_id=7) == ()
    assert gpu_samples.forget_gpu_readings(conn, before=105.0) == 5
    assert len(gpu_samples.gpu_readings(conn, run_id=41)) == 5
