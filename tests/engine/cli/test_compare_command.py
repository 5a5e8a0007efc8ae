"""`finetop compare` as people run it: 80 columns, four forms, pictures, and nothing changed in the workspace."""

import csv
import io
import json
import xml.etree.ElementTree as ElementTree

import pytest

from engine.cli.main import main
from engine.compare.svg import ticks
from engine.present.text import cells
from engine.store.rebuild import rebuild
from tests.engine.compare.comparekit import judged, noisy, predictions, run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def workspace(tmp_path):
    def level(step):
        return 2 / (1 + step / 50)

    long = "北京的首都是哪里？\x1b[31m" + "很长的问题" * 40
    for number in (1, 2, 3, 4, 5):
        run(tmp_path, number, loss=noisy(level, seed=number), evaluation=level, saved=[100, 200],
            settings={"optim.learning_rate": number * 1e-4, "data.files": [f"/a/long/path/{'to/' * 20}{number}.jsonl"]},
            samples={long: f"答案{number}" * 30})  # fmt: skip
        rows = predictions([0] * (8 * number) + [1] * (100 - 8 * number))
        rows[0] |= {"prompt": long, "text": f"答案{number}" * 30}
        rows[1] |= {"prompt": "| a *b* <c>", "text": "`x`\x1b[2J"}
        judged(tmp_path, number, 200, rows)
    return tmp_path


def printed(capsys, *words):
    assert main(["compare", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "subjects", [("1", "2@100"), ("1", "2@100", "3"), ("1@100", "2", "3", "4"), ("1", "2@100", "3", "4", "5")]
)
def test_nothing_is_wider_than_80_cells_and_control_characters_are_gone(workspace, capsys, subjects):
    page = printed(capsys, *subjects, "--workspace", str(workspace))
    assert max(map(cells, page.splitlines())) <= 80
    assert "\x1b" not in page
    for title in ("at the same step", "settings that differ", "cost", "answers"):
        assert title in page
    assert "optim.learning_rate" in page


def test_the_difference_stands_beside_two_and_below_more(workspace, capsys):
    two = printed(capsys, "1", "2@100", "--workspace", str(workspace))
    assert "B - A" in two and "against A" not in two
    three = printed(capsys, "1", "2@100", "3", "--workspace", str(workspace))
    assert "B - A" not in three and "against A" in three


def test_json_says_everything(workspace, capsys):
    said = json.loads(printed(capsys, "1", "2", "--workspace", str(workspace), "--json"))
    assert [subject["letter"] for subject in said["subjects"]] == ["A", "B"]
    match = next(e for e in said["evidence"] if e["key"] == "exact_match")
    assert (match["wins"], match["losses"], match["test"]) == (0, 8, "McNemar")
    assert said["results"][0]["rows"][0]["differences"][1] == 0
    assert said["curves"]["train/loss"][0]["columns"][0]["count"] > 0


def test_csv_has_one_value_a_line(workspace, capsys):
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "1", "2", "--workspace", str(workspace), "--csv"))))
    best = [row for row in rows if row["section"] == "best" and row["key"] == "eval/loss"]
    assert [row["letter"] for row in best] == ["A", "B"] and float(best[0]["value"]) == pytest.approx(0.4)
    assert {"best", "step", "settings", "cost", "evidence"} <= {row["section"] for row in rows}


def test_markdown_obeys_nothing_in_prompts(workspace, capsys):
    page = printed(capsys, "1", "2", "--workspace", str(workspace), "--markdown", "--answers", "5")
    assert r"\| a \*b\* \<c\>" in page and "\x1b" not in page
    table = [line for line in page.splitlines() if line.startswith("| eval loss")]
    assert table and all(line.count("|") == 5 for line in table[:1])


def test_a_plot_is_a_well_formed_svg_with_a_line_for_each_run(workspace, capsys, tmp_path):
    for x in ("step", "tokens", "time"):
        target = tmp_path / f"{x}.svg"
        printed(capsys, "1", "2", "--workspace", str(workspace), "--plot", str(target), "--x", x)
        picture = ElementTree.parse(target).getroot()
        lines = picture.findall(f"{SVG}polyline")
        assert len(lines) == 4, "two metrics of two runs"
        assert len({line.get("stroke") for line in lines}) == 2
        assert len({line.get("stroke-dasharray") for line in lines}) == 2, "not told apart by colour alone"
        for line in lines:
            points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
            assert points == sorted(points, key=lambda point: point[0])
            assert all(64 <= across <= 760 for across, _ in points)
        assert "\x1b" not in target.read_text()


def test_a_plot_of_another_kind_or_without_its_library_is_refused(workspace, capsys, tmp_path):
    assert main(["compare", "1", "2", "--workspace", str(workspace), "--plot", "x.pdf"]) == 2
    assert ".svg or .png" in capsys.readouterr().err
    assert main(["compare", "1", "2", "--workspace", str(workspace), "--plot", str(tmp_path / "no" / "x.svg")]) == 2
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert main(["compare", "1", "2", "--workspace", str(workspace), "--plot", str(tmp_path / "x.png")]) == 2
        assert "matplotlib" in capsys.readouterr().err
    else:
        printed(capsys, "1", "2", "--workspace", str(workspace), "--plot", str(tmp_path / "x.png"))
        assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_comparing_changes_nothing(workspace, capsys):
    rebuild(workspace)
    before = {
        path: path.stat().st_mtime_ns for path in workspace.rglob("*") if path.is_file() and "-shm" not in path.name
    }
    printed(capsys, "1", "2", "--workspace", str(workspace))
    after = {
        path: path.stat().st_mtime_ns for path in workspace.rglob("*") if path.is_file() and "-shm" not in path.name
    }
    assert {p: t for p, t in after.items() if "-wal" not in p.name} == before


def test_a_wrong_name_is_said_in_one_line_and_a_hint(workspace, capsys):
    assert main(["compare", "1", "99", "--workspace", str(workspace)]) == 2
    said = capsys.readouterr().err
    assert "there is no run 99" in said and "Traceback" not in said
    assert main(["compare", "1", "--workspace", str(workspace)]) == 2


def test_ticks_are_round_and_inside():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(3, 97) == pytest.approx([20, 40, 60, 80])
    assert ticks(5, 5) == [5]
    for low, high in ((-0.013, 0.2), (1e-9, 3e-9), (0, 123_456_789)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 8 and low - 1e-12 <= found[0] and found[-1] <= high * (1 + 1e-9)
