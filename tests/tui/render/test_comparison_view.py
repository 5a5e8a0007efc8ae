"""Which answers of a comparison are shown."""

from engine.compare.comparison_records import Answers
from tui.render.comparison_view import WHICH_ANSWERS, chosen_answers


def test_answers_that_differ_and_those_where_the_first_scores_better_are_told_from_all():
    same = Answers("p1", "r", ("x", "x"), (1, 1), ({"exact_match": 1.0}, {"exact_match": 1.0}))
    better = Answers("p2", "r", ("r", "y"), (1, 1), ({"exact_match": 1.0}, {"exact_match": 0.0}))
    worse = Answers("p3", "r", ("y", "r"), (1, 1), ({"exact_match": 0.0}, {"exact_match": 1.0}))
    unscored = Answers("p4", None, ("a", "b"), (1, 1))
    answers = (same, better, worse, unscored)
    every, different, won = (chosen_answers(answers, which) for which in WHICH_ANSWERS)
    assert every == answers
    assert different == (better, worse, unscored)
    assert won == (better,)
