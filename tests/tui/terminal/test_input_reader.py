"""What the terminal sends is read as keys and pastes in the order of typing, however it is cut into pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events

from tui.terminal.input_reader import BROKEN_SECONDS, InputReader, Typed, pasted_text
from tui.terminal.terminal_background import BackgroundReport


def read(data, cuts=(), pause=0.0):
    """All that comes of the data when it arrives in pieces: keys by name, pastes as ('text',)."""
    reader, now, found = InputReader(0.0), 0.0, []
    ends = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(ends):
        now += pause
        found += list(reader.feed(data[start:end], now)) + list(reader.tick(now))
    found += list(reader.tick(now + 1.0))
    return flat(found)


def flat(messages):
    names = []
    for message in messages:
        for event in message.keys if isinstance(message, Typed) else (message,):
            names.append((event.text,) if isinstance(event, events.Paste) else getattr(event, "key", type(event)))
    return names


INSIDE = st.text(st.sampled_from("dq \n中é\x1b[31m0~;]\x07\\é"), max_size=30).filter(
    lambda text: "\x1b[201~" not in text
)
KEYS = st.lists(
    st.sampled_from(
        [("j", "j"), ("\r", "enter"), ("\x1b[A", "up"), ("\x1b[6~", "pagedown"), ("中", "中"), ("\x7f", "backspace")]
    ),
    max_size=5,
)


@given(KEYS, INSIDE, KEYS, INSIDE, st.lists(st.integers(0, 200), max_size=12))
def test_pastes_are_text_and_in_order_however_the_input_is_cut(before, first, between, second, cuts):
    sent = "".join(code for code, _ in before) + f"\x1b[200~{first}\x1b[201~"
    sent += "".join(code for code, _ in between) + f"\x1b[200~{second}\x1b[201~j"
    wanted = [name for _, name in before] + [(pasted_text(first),)]
    wanted += [name for _, name in between] + [(pasted_text(second),), "j"]
    assert read(sent, cuts) == wanted


@pytest.mark.parametrize(
    ("pasted", "text"),
    [
        ("ls -la \x1b[31mdd\x1b[0m q", "ls -la dd q"),
        ("\x1b]0;title\x07name", "name"),
        ("\x1b]8;;http://a.b\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        ("a\x00b\x03c\x9bd\te", "abcd\te"),
        ("\x1bOd\x1b(Bx\x1b", "dx"),
        ("\x1b[200~twice", "twice"),
        ("\x1b]never closed " * 3, "never closed " * 3),
    ],
)
def test_of_a_paste_the_text_is_left(pasted, text):
    assert pasted_text(pasted) == text
    assert read(f"\x1b[200~{pasted}\x1b[201~") == [(text,)]


def test_a_paste_of_a_megabyte_is_one_message_and_costs_little():
    text = "\x1b[32mdone\x1b[0m 完 " * 60_000
    reader, now = InputReader(0.0), 0.0
    found = []
    for at in range(0, len(text) + 12, 4096):
        found += reader.feed(f"\x1b[200~{text}\x1b[201~"[at : at + 4096], now)
    assert flat(found) == [("done 完 " * 60_000,)] and len(found) == 1


def test_what_one_read_gives_comes_in_one_message_with_the_time_of_the_reading():
    (message,) = InputReader(0.0).feed("d" * 3000, 7.0)
    assert len(message.keys) == 3000 and {key.time for key in message.keys} == {7.0}
    found = list(InputReader(0.0).feed("jj\x1b[Ik\x1b[O", 0.0))
    assert [type(message) for message in found] == [Typed, events.AppFocus, Typed, events.AppBlur]


def test_escape_alone_is_the_key_once_nothing_follows_it():
    reader = InputReader(0.0)
    assert flat(reader.feed("\x1b", 0.0)) == [] and flat(reader.tick(0.05)) == []
    assert flat(reader.tick(0.2)) == ["escape"]
    assert flat(reader.feed("\x1b", 1.0)) == [] and flat(reader.feed("[B", 1.01)) == ["down"]
    assert read("\x1b\x1b[200~text\x1b[201~") == ["escape", ("text",)]


def test_a_paste_without_an_end_does_not_swallow_the_keyboard_for_ever():
    reader = InputReader(0.0)
    assert flat(reader.feed("\x1b[200~half\x1b[2", 0.0)) == []
    assert flat(reader.feed("d", 1.0)) == [], "the link is slow; `ESC [ 2 d` is a sequence"
    assert flat(reader.feed("d and the rest of it", 2.0 + BROKEN_SECONDS)) == [], "slower than that"
    assert flat(reader.feed("q", 3.0 + 2 * BROKEN_SECONDS)) == [("halfd and the rest of it",), "q"]


def test_the_report_of_the_background_is_no_key_and_in_a_paste_it_is_text():
    report = "\x1b]11;rgb:ffff/ffff/ffff\x1b\\"
    assert read(f"j{report}k", (9,)) == ["j", BackgroundReport, "k"]
    assert read(f"\x1b[200~a{report}b\x1b[201~") == [("ab",)]


def test_enter_typed_into_the_shell_before_the_screen_was_there():
    assert read("#9\n") == ["number_sign", "9", "enter"]
