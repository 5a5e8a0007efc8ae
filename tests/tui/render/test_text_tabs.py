"""The settings of a run in its tab: what is not the default first, nothing cut, no name running into a value."""

import pytest

from engine.present.text import cells
from engine.store.run_records import Run, SettingValue
from tui.render.text_tabs import ConfigSheet

DEFAULTS = [SettingValue(f"group.default_number_{index}", index, "default") for index in range(60)]
SET = [
    SettingValue("data.files", ["/data/" + "folder/" * 12 + "chats.jsonl"], "--data-file"),
    SettingValue("eval.keep_predictions_of_every_evaluation", 20, "preset standard"),
    SettingValue("optim.learning_rate", 2e-4, "the file /home/someone/" + "far/" * 20 + "run.json"),
]


def shown(width: int) -> list[str]:
    run = Run(**dict.fromkeys(Run._fields) | {"id": 7, "name": "名字" * 40, "tags": (), "gpus": (), "attempts": 1})
    sheet = ConfigSheet()
    sheet.take(run, [*DEFAULTS[:30], *SET, *DEFAULTS[30:]], "/work/" + "deep/" * 30 + "runs/7")
    return ["".join(text for text, _ in line) for line in sheet.body(width, 400)]


@pytest.mark.parametrize("width", [38, 58, 78, 118])
def test_what_is_not_the_default_comes_first_and_nothing_is_cut(width):
    lines = shown(width)
    assert all(cells(line) <= width for line in lines) and not any("…" in line for line in lines)
    text = "".join(line.strip() for line in lines)
    order = [text.index(word) for word in ("not the default", *(s.key for s in SET), "the defaults", DEFAULTS[0].key)]
    assert order == sorted(order)
    assert "default" not in text.split("the defaults")[1].replace("group.default_number", "")  # 60 times is too often
    assert "folder/" * 12 in text and "名字" * 40 in text and "deep/" * 30 in text


@pytest.mark.parametrize("width", [58, 78, 118])
def test_a_name_never_runs_into_its_value(width):
    lines = shown(width)
    (at,) = [at for at, line in enumerate(lines) if "predictions" in line]
    assert " 20" in lines[at] or lines[at + 1].split() == ["20", "preset", "standard"]
