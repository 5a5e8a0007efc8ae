"""Whatever is wrong with a config file, a setting or a command line: a clear message and exit code 2, nothing else."""

import contextlib
import io
import json
import os
import random
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.cli.main import main
from engine.settings.schema import SETTINGS

SLOWLY = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def refused(*words: str) -> str:
    """What is said of words that must be refused; nothing is ever started, since there is no data."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        no_sample = [] if any(word.startswith("--data-file") for word in words) else ["--val-file", "no/such.jsonl"]
        code = main(["plan", *no_sample, *words])
    said = err.getvalue()
    assert code == 2, (code, said)
    assert said.startswith("finetop: ") and "Traceback" not in said
    assert len(said) < 20_000
    assert not any(char in said for char in "\0\x1b\x7f\x9b"), "nothing for the terminal to obey"
    assert out.getvalue() == ""
    return said


@pytest.fixture
def file(tmp_path):
    def write(content: bytes | str, name: str = "run.json") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return str(path)

    return write


GOOD = {
    "train": {"epochs": 3, "batch_size": 4},
    "optim": {"learning_rate": 1e-4},
    "run": {"name": "名字", "tags": ["a"]},
}
GOOD_JSON = json.dumps(GOOD, ensure_ascii=False, indent=1)
GOOD_TOML = '[train]\nepochs = 3\nbatch_size = 4\n[optim]\nlearning_rate = 1e-4\n[run]\nname = "名字"\ntags = ["a"]\n'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "", "the file is empty"),
        ("a.toml", "\ufeff \n", "the file is empty"),
        ("a.json", GOOD_JSON[:40], "a.json:4: not JSON"),
        ("a.toml", "[train]\nepochs = \n", "not TOML: Invalid value (at line 2"),
        ("a.json", '{"train": {"epochs": 3, "epochs": 4}}', "'epochs' stands in it twice"),
        ("a.json", '{"train": {"epochs": 3}, "train.epochs": 4}', "'train.epochs' stands in it twice"),
        ("a.toml", "[train]\nepochs = 3\nepochs = 4\n", "not TOML"),
        ("a.toml", "[train]\nepochs = 3\n[train]\n", "not TOML"),
        ("a.json", "[1, 2]", "not a list"),
        ("a.json", '"text"', "not a text"),
        ("a.json", "null", "not a null"),
        ("a.json", '{"train": 3}', "there is no setting 'train'"),
        ("a.json", '{"train": {"epochs": null}}', "must be a whole number or 'auto'"),
        ("a.json", '{"train": {"epochs": {"a": 1}}}', "must be a whole number or 'auto'"),
        ("a.json", '{"train": {"epochs": 1e999}}', "must be a whole number"),
        ("a.json", '{"optim": {"learning_rate": NaN}}', "must be a number or 'auto'"),
        ("a.json", '{"train": {"max_steps": 1' + "0" * 100 + "}}", "larger than any machine can take"),
        ("a.json", '{"train": {"max_steps": 1' + "0" * 9000 + "}}", "not JSON"),
        ("a.toml", "train.max_steps = 1" + "0" * 9000, "not TOML"),
        ("a.json", '{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
        ("a.toml", "a = " + "[" * 100_000, "nested too deep"),
        ("a.json", '{"run": {"name": ' + "[" * 500 + "]" * 500 + "}}", "must be text"),
        ("a.json", '{"run": {"name": "a\\u0000b"}}', "NUL"),
        ("a.json", '{"run": {"name": "\\ud800"}}', "UTF-8"),
        ("a.json", '{"run": {"na\0me": 1}}', "not JSON"),
        ("a.toml", "[run]\nname = 'a\0b'\n", "not TOML"),
        ("a.json", GOOD_JSON.encode("gb18030"), "not UTF-8 text (byte"),
        ("a.json", GOOD_JSON.encode("utf-16"), "not UTF-8 text (byte"),
        ("a.json", GOOD_JSON.encode() + "名".encode("gb18030"), "not UTF-8 text (byte"),
        ("a.json", b"\0" * 100, "not JSON"),
        ("a.toml", random.Random(0).randbytes(7) + b"\xff", "not UTF-8"),
        ("a.jsonl", '{"messages": []}\n{"messages": []}\n', "a data file is given with --data-file"),
        ("a.csv", "question,answer\na,b\n", "a data file is given with --data-file"),
        ("a.json", '[{"instruction": "a", "output": "b"}]', "a data file is given with --data-file"),
        ("a.json", "{" + '"a": "' + "x" * 5_000_000 + '"}', "too large for a file of settings"),
        ("a.json", '{"' + "k" * 1_000_000 + '": 1}', "there is no setting"),
        ("a.json", '{"run": {"name": ["' + "v" * 1_000_000 + '"]}}', "must be text"),
    ],
)
def test_a_bad_config_file_is_told_with_its_name(file, name, content, words):
    path = file(content, name)
    said = refused("--config", path)
    assert words in said and path in said


def test_what_is_no_file_is_told(tmp_path, file):
    assert "Is a directory" in refused("--config", str(tmp_path))
    assert "No such file" in refused("--config", str(tmp_path / "none.toml"))
    assert "null byte" in refused("--config", "a\0b")
    assert "File name too long" in refused("--config", "x" * 5000)
    os.symlink("loop", tmp_path / "loop")
    assert "symbolic links" in refused("--config", str(tmp_path / "loop"))


def test_an_unreadable_file_is_told(file):
    path = file(GOOD_TOML, "a.toml")
    os.chmod(path, 0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    assert "Permission denied" in refused("--config", path)


@SLOWLY
@given(data=st.data())
def test_a_good_config_with_bytes_changed_is_refused_or_harmless(file, data):
    """Damaged anywhere: cut off, a byte changed, a piece repeated. What still parses comes to 'no data'."""
    name = data.draw(st.sampled_from(["a.json", "a.toml"]))
    raw = (GOOD_JSON if name == "a.json" else GOOD_TOML).encode()
    at = data.draw(st.integers(0, len(raw)))
    damage = data.draw(st.sampled_from(["cut", "change", "insert", "repeat"]))
    if damage == "cut":
        raw = raw[:at]
    elif damage == "change":
        raw = raw[:at] + bytes([data.draw(st.integers(0, 255))]) + raw[at + 1 :]
    elif damage == "insert":
        raw = raw[:at] + data.draw(st.binary(max_size=6)) + raw[at:]
    else:
        raw = raw[:at] + raw[at // 2 :]
    refused("--config", file(raw, name))


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([2**63, -(2**70), "auto"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_PATHS = st.sampled_from([path for path in SETTINGS if path not in ("data.files", "data.val_files")]) | st.text(
    max_size=20
)


@SLOWLY
@given(values=st.dictionaries(_PATHS, _VALUES, max_size=6))
def test_any_value_for_any_setting_in_a_file_is_refused_or_harmless(file, values):
    refused("--config", file(json.dumps(values)))


@SLOWLY
@given(path=_PATHS, value=st.text(max_size=30) | _VALUES.map(lambda value: json.dumps(value)))
def test_any_set_is_refused_or_harmless(path, value):
    refused("--set", f"{path}={value}")


@SLOWLY
@given(text=st.text(max_size=40))
def test_any_text_after_set_is_refused_or_harmless(text):
    refused(f"--set={text}")


@SLOWLY
@given(
    flag=st.sampled_from(
        [
            "--batch-size",
            "--epochs",
            "--max-steps",
            "--learning-rate",
            "--max-length",
            "--seed",
            "--method",
            "--objective",
            "--map",
            "--name",
            "--system",
            "--preset",
            "--config",
            "--val-file",
            "--model",
            "--resume",
            "--show",
            "--workspace",
        ]
    ),
    value=st.text(max_size=20)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["auto", "1e999", "-0"]),
)
def test_any_value_of_any_flag_is_refused_or_harmless(tmp_path_factory, flag, value):
    words = [f"{flag}={value}"]
    if flag != "--workspace":
        words += ["--workspace", str(_empty(tmp_path_factory))]
    refused(*words)


def _empty(factory, made=[]):  # noqa: B006 - one folder for all examples
    if not made:
        made.append(factory.mktemp("empty"))
    return made[0]


@SLOWLY
@given(words=st.lists(st.text(max_size=12).filter(lambda word: word not in ("-h", "--help", "--version")), min_size=1))
def test_any_words_are_refused(words):
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert main(["zz" + words[0], *words[1:]]) == 2
    assert err.getvalue().startswith("finetop: ") and "Traceback" not in err.getvalue()


def test_a_data_file_name_of_any_kind_is_refused():
    dice = random.Random(3)
    for _ in range(100):
        name = "".join(dice.choice(string.printable + "\0é名\ud800") for _ in range(dice.randint(0, 30)))
        refused(f"--data-file={name}x.jsonl")
    for name in ("", "\0", "~", "~nobody/x.csv", "x" * 5000 + ".csv", "/dev/null", "/proc/self/mem/x.csv"):
        refused(f"--data-file={name}")


def test_a_model_name_of_any_kind_that_is_a_path_is_refused(file):
    data = file('{"prompt": "a", "completion": "b"}\n', "a.jsonl")
    for name in ("", "./none", "/none", "~/none", "a/b/c", data, os.path.dirname(data)):
        said = refused("--data-file", data, f"--model={name}")
        assert "model" in said
