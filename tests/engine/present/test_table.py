"""A table for a terminal is cut to it; into a pipe nothing is cut, and one endless name moves its own row only."""

from engine.present.text import Column, cells, table

COLUMNS = [Column("id", right=True), Column("name", least=16), Column("state")]


def test_an_endless_name_pushes_its_own_row_apart_and_no_other():
    rows = [["1", "n" * 2500, "done"], ["2", "short", "done"]]
    lines = table(COLUMNS, rows, 10_000)
    assert "n" * 2500 in lines[1] and lines[1].endswith("done")
    assert cells(lines[2]) < 100
    assert max(map(cells, table(COLUMNS, rows, 80))) <= 80
