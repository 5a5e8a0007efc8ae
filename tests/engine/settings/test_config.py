"""Settings: which layer wins, every problem at once, saved configs that say the same again, and their page in docs."""

import json
import os
import pickle
import stat
from pathlib import Path

import pytest

from engine.base.errors import ConfigError, InputError
from engine.base.workspace import Workspace
from engine.models.model_name import check_model_name
from engine.runs.run_folder import create_run
from engine.settings.auto_values import auto_values, require_resolved, resolve_auto
from engine.settings.coerce import parse_set
from engine.settings.config_file import read_config_file
from engine.settings.resolve import Layer, read_run, resolve
from engine.settings.schema import MAY_CHANGE_ON_RESUME, SETTINGS, RunConfig, diff

ROOT = Path(__file__).resolve().parents[3]


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def settings_of(*words: str):
    """What `finetop train WORDS` would run, as the command line resolves it."""
    from engine.cli.main import build_parser
    from engine.cli.settings_flags import resolve_settings

    return resolve_settings(build_parser().parse_args(["train", *words]))


# -- layers --------------------------------------------------------------------------------------------------------


def test_a_flag_beats_the_config_file_which_beats_the_preset_which_beats_the_default(tmp_path):
    config = write(tmp_path / "run.toml", "[train]\nepochs = 7\nbatch_size = 6\n")
    resolved = settings_of("--preset", "quick", "--config", str(config), "--batch-size", "5")
    assert resolved.config.train.batch_size == 5
    assert resolved.config.train.epochs == 7
    assert resolved.config.optim.learning_rate == 1e-4
    assert resolved.config.lora.r == 16
    assert resolved.origin["train.batch_size"] == "--batch-size"
    assert resolved.origin["train.epochs"] == str(config)
    assert resolved.origin["optim.learning_rate"] == "preset quick"
    assert resolved.origin["lora.r"] == "default"


def test_the_last_set_of_a_key_wins():
    assert settings_of("--set", "lora.r=4", "--set", "lora.r=8").config.lora.r == 8


@pytest.mark.parametrize(
    ("preset", "batch", "epochs", "rate"),
    [("quick", 2, 1, 1e-4), ("standard", 4, 3, 1e-4), ("extended", 8, 10, 5e-5), ("precision", 16, 20, 1e-5)],
)
def test_the_four_presets_carry_what_their_names_promise(preset, batch, epochs, rate):
    config = settings_of("--preset", preset).config
    assert (config.train.batch_size, config.train.epochs, config.optim.learning_rate) == (batch, epochs, rate)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("lora.r=8", "lora.r", 8),
        ("lora.alpha=8", "lora.alpha", 8.0),
        ("optim.learning_rate=1e-4", "optim.learning_rate", 1e-4),
        ("optim.learning_rate=auto", "optim.learning_rate", "auto"),
        ("train.epochs=3.0", "train.epochs", 3),
        ("lora.dora=true", "lora.dora", True),
        ("lora.dora=off", "lora.dora", False),
        ("train.activation_checkpointing=auto", "train.activation_checkpointing", "auto"),
        ("eval.every=10", "eval.every", 10),
        ("eval.every=epoch", "eval.every", "epoch"),
        ("run.name=42", "run.name", "42"),
        ("data.system=be kind, be brief", "data.system", "be kind, be brief"),
        ("lora.targets=all-linear", "lora.targets", "all-linear"),
        ("lora.targets=q_proj", "lora.targets", ["q_proj"]),
        ("lora.targets=q_proj, v_proj", "lora.targets", ["q_proj", "v_proj"]),
        ('lora.targets=["q_proj"]', "lora.targets", ["q_proj"]),
        ("optim.betas=0.9,0.95", "optim.betas", [0.9, 0.95]),
        ("optim.betas=[0.9, 0.95]", "optim.betas", [0.9, 0.95]),
        ("run.tags=", "run.tags", []),
        ("run.gpus=0,1", "run.gpus", ["0", "1"]),
        ('eval.prompts=["Hello, you"]', "eval.prompts", ["Hello, you"]),
        ("data.map=prompt=ask,completion=answer", "data.map", {"prompt": "ask", "completion": "answer"}),
        ('data.map={"prompt": "ask"}', "data.map", {"prompt": "ask"}),
    ],
)
def test_set_takes_every_type(text, path, value):
    key, given = parse_set(text)
    made = resolve([Layer("--set", {key: given})]).config.flat()[path]
    assert made == value
    assert type(made) is type(value)


def test_json_and_toml_say_the_same(tmp_path):
    toml = write(tmp_path / "a.toml", "[train]\nepochs = 3\n[optim]\nbetas = [0.9, 0.95]\n")
    as_json = write(tmp_path / "a.json", '{"train": {"epochs": 3}, "optim": {"betas": [0.9, 0.95]}}')
    dotted = write(tmp_path / "b.json", '\ufeff{"train.epochs": 3, "optim.betas": [0.9, 0.95]}')
    no_suffix = write(tmp_path / "conf", "[train]\nepochs = 3\noptim.betas = 1\n".replace("optim.betas = 1\n", ""))
    assert read_config_file(toml) == read_config_file(as_json) == read_config_file(dotted)
    assert read_config_file(no_suffix) == {"train.epochs": 3}


def test_paths_that_exist_become_absolute(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("a.jsonl", "b,c.jsonl"):
        write(tmp_path / "work" / name, "{}")
    (tmp_path / "work" / "model").mkdir()
    config = settings_of("--data-file", "a.jsonl", "--data-file", "b,c.jsonl", "--model", "model").config
    assert config.data.files == [str(tmp_path / "work" / "a.jsonl"), str(tmp_path / "work" / "b,c.jsonl")]
    assert config.model.name == str(tmp_path / "work" / "model")
    assert settings_of("--data-file", "org/name").config.data.files == ["org/name"]
    assert settings_of("--set", "data.files=a.jsonl,org/name").config.data.files == [
        str(tmp_path / "work" / "a.jsonl"),
        "org/name",
    ]
    file = write(tmp_path / "work" / "run.toml", '[data]\nfiles = "b,c.jsonl"\n')
    assert settings_of("--config", str(file)).config.data.files == [str(tmp_path / "work" / "b,c.jsonl")]


def test_the_starter_model_is_not_a_folder_that_happens_to_be_called_so(tmp_path, monkeypatch):
    (tmp_path / "starter").mkdir()
    monkeypatch.chdir(tmp_path)
    assert settings_of("--model", "starter").config.model.name == "starter"
    check_model_name("starter")


# -- what is wrong -------------------------------------------------------------------------------------------------


def test_every_problem_is_told_at_once_with_its_place_and_the_nearest_name(tmp_path):
    config = write(tmp_path / "run.toml", "[lora]\nrr = 8\n[train]\nepochs = 'many'\n[optim]\nwarmup = 500\n")
    with pytest.raises(ConfigError) as caught:
        settings_of("--config", str(config), "--batch-size", "0", "--set", "optim.lr=1", "--max-steps", "400")
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    assert f"{config}: there is no setting 'lora.rr'; did you mean 'lora.r'?" in problems
    assert f"{config}: train.epochs is \"many\", but must be a whole number or 'auto'" in problems
    assert "--batch-size: train.batch_size is 0, but must be at least 1" in problems
    assert "--set: there is no setting 'optim.lr'; did you mean 'optim.learning_rate'?" in problems
    assert "optim.warmup (500 steps) is not less than train.max_steps (400)" in problems


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("learning_rat", "optim.learning_rate"),
        ("optim.lr", "optim.learning_rate"),
        ("num_train_epochs", "train.epochs"),
        ("lora_rank", "lora.r"),
        ("seed", "'data.seed' or 'train.seed'"),
        ("train.max_length", "data.max_length"),
        ("lora_alpha", "lora.alpha"),
        ("Data.Files", "data.files"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(name, guess):
    with pytest.raises(ConfigError, match=guess):
        resolve([Layer("--set", {name: 1})])


def test_a_name_nothing_like_any_setting_gets_no_guess():
    with pytest.raises(ConfigError) as caught:
        resolve([Layer("--set", {"zzzzqqqq": 1})])
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("lora.dora", 1, "must be true or false"),
        ("lora.r", True, "must be a whole number"),
        ("lora.r", 1.5, "must be a whole number"),
        ("train.epochs", "3", "must be a whole number or 'auto'"),
        ("optim.learning_rate", float("nan"), "must be a number"),
        ("optim.learning_rate", 10**400, "must be a number"),
        ("train.max_steps", 10**30, "larger than any machine"),
        ("train.micro_tokens", 2**31, "larger than any machine"),
        ("train.seed", 2**63, "larger than any machine"),
        ("data.val_fraction", 0.95, "must be at most 0.9"),
        ("method.kind", "loar", "must be one of full, lora, qlora"),
        ("data.format", "chatml", "must be one of auto, openai"),
        ("optim.betas", [0.9], "two numbers"),
        ("run.name", "a\0b", "NUL"),
        ("data.system", "\ud800", "UTF-8"),
        ("data.files", {"a": 1}, "must be a list of texts"),
        ("data.map", [1], "must be pairs of texts"),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_wanted(path, value, words):
    with pytest.raises(ConfigError, match=words):
        resolve([Layer("--set", {path: value})])


def test_what_the_terminal_would_obey_is_not_printed():
    with pytest.raises(ConfigError) as caught:
        resolve([Layer("--set", {"lora.\x1b[2J": 1, "lora.r": "\x9b2J\x7f"})])
    assert not any(char in str(caught.value) for char in "\x1b\x9b\x7f")


def test_the_formats_are_those_of_the_readers():
    from engine.formats import FORMATS

    for name in ("auto", *FORMATS):
        assert resolve([Layer("--set", {"data.format": name})]).config.data.format == name


def test_what_may_change_on_resume_is_the_same_for_the_command_and_the_worker():
    assert all(any(path.startswith(one) for path in SETTINGS) for one in MAY_CHANGE_ON_RESUME)


# -- auto ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "epochs", "rate"), [(1, 4, 1e-4), (99, 4, 1e-4), (100, 3, 2e-4), (1000, 3, 2e-4), (1001, 2, 2e-4)]
)
def test_auto_follows_the_number_of_rows(rows, epochs, rate):
    chosen = auto_values(RunConfig(), rows)
    assert chosen["train.epochs"] == epochs
    assert chosen["optim.learning_rate"] == pytest.approx(rate)
    assert 1 <= chosen["train.batch_size"] <= 32


def test_auto_takes_a_lower_rate_for_full_weights_and_leaves_what_was_set():
    config = RunConfig().replace({"method.kind": "full", "train.epochs": 9})
    assert auto_values(config, 5000)["optim.learning_rate"] == 2e-5
    assert auto_values(config, 50)["optim.learning_rate"] == 1e-5
    assert "train.epochs" not in auto_values(config, 5000)


def test_a_config_without_auto_keeps_its_settings_and_its_type_when_others_change():
    config = resolve_auto(RunConfig().replace({"train.epochs": 9}), 5000)
    assert (config.train.epochs, config.optim.learning_rate) == (9, 2e-4)
    longer = config.replace({"train.epochs": 12})
    assert type(longer) is type(config) and type(longer.train) is type(config.train)
    assert diff(config, longer) == {"train.epochs": (9, 12)}
    assert pickle.loads(pickle.dumps(longer)) == longer


def test_a_config_that_still_has_auto_is_no_resolved_one():
    with pytest.raises(ValueError, match=r"optim\.learning_rate"):
        require_resolved(RunConfig().replace({"train.epochs": 1, "train.batch_size": 1}))


# -- saved configs and run folders ----------------------------------------------------------------------------------


def test_a_saved_config_resolves_to_the_same_settings(tmp_path):
    saved = tmp_path / "saved.json"
    words = [
        "--preset",
        "extended",
        "--method",
        "full",
        "--set",
        'eval.prompts=["a, b"]',
        "--set",
        "lora.targets=q_proj",
    ]
    first = settings_of(*words, "--map", "prompt=问,completion=答", "--save-config", str(saved))
    again = settings_of("--config", str(saved))
    assert diff(first.config, again.config) == {}
    assert json.loads(saved.read_text("utf-8"))["data"]["map"] == {"prompt": "问", "completion": "答"}


def test_a_file_name_that_is_not_utf8_survives_saving(tmp_path):
    odd = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff.jsonl")
    Path(odd).write_text("{}")
    saved = tmp_path / "saved.json"
    settings_of("--data-file", odd, "--save-config", str(saved))
    assert settings_of("--config", str(saved)).config.data.files == [odd]


def test_save_config_into_nowhere_is_told(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        settings_of("--save-config", str(tmp_path / "no" / "x.json"))


def test_run_folders_are_private_and_remember_origins(tmp_path):
    before = os.umask(0o022)
    try:
        resolved = resolve([Layer("--epochs", {"train.epochs": 3, "data.files": ["a.jsonl"]})])
        run_id, folder = create_run(Workspace(tmp_path), resolved)
    finally:
        os.umask(before)
    assert run_id == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
    saved = json.loads((folder / "config.json").read_text("utf-8"))
    assert saved["finetop"]["origin"]["train.epochs"] == "--epochs"
    assert saved["run"]["name"] == "starter-a-lora"


@pytest.mark.parametrize("described", [3, {"origin": ["train.epochs"]}, {"origin": {"train.epochs": "--epochs"}}, None])
def test_a_saved_run_is_read_whatever_stands_beside_its_settings(tmp_path, described):
    (tmp_path / "config.json").write_text(json.dumps({"finetop": described, "train": {"epochs": 7}}))
    resolved = read_run(tmp_path)
    assert resolved.config.train.epochs == 7
    known = isinstance(described, dict) and isinstance(described["origin"], dict)
    assert resolved.origin["train.epochs"] == ("--epochs" if known else str(tmp_path / "config.json"))


def test_run_ids_count_on_and_strange_folders_do_not_count(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.new_run()[0] == 1
    for name in ("7", "x", "²", "٣", "007", "9" * 30):
        (workspace.runs / name).mkdir()
    assert workspace.run_ids() == [1, 7]
    assert workspace.new_run()[0] == 8


def test_a_workspace_that_cannot_hold_runs_is_told(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(InputError, match="no run can be made in"):
        Workspace(tmp_path).new_run()


# -- the page of settings -------------------------------------------------------------------------------------------


def settings_page() -> str:
    """docs/settings.md, from the code."""
    import typing

    from engine.settings.schema import RunConfig as Config

    titles = {
        "model": "The model",
        "data": "The data",
        "method": "What is trained, and on what",
        "lora": "The adapter (lora and qlora)",
        "optim": "The optimizer",
        "train": "The course of the training",
        "eval": "Looking at it on the way",
        "save": "Checkpoints",
        "run": "The run itself",
    }
    lines = [
        "# Settings",
        "",
        "Every setting of a run. Give it as `--set GROUP.NAME=VALUE`, in a TOML or JSON file for `--config`",
        "(`[GROUP]`, then `NAME = VALUE`), or in a preset. A flag beats the config file, which beats the preset,",
        "which beats the default; `finetop plan` shows which one won. A list is written `a,b,c` on the command line.",
        "",
        "This page is written from `engine/settings/schema.py`: "
        "`UPDATE_GOLDENS=1 pytest tests/engine/settings/test_config.py`.",
    ]
    for group in typing.get_type_hints(Config):
        lines += ["", f"## {titles[group]}", "", "| setting | default | takes | meaning |", "|---|---|---|---|"]
        for path, one in SETTINGS.items():
            if path.startswith(f"{group}."):
                cells = (f"`{path}`", _default(one.default), _takes(one), one.doc)
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return "—" if value in ("", {}) else f"`{value}`"


def _takes(one) -> str:
    import types
    import typing

    from engine.settings.coerce import describe_type

    union = typing.get_origin(one.type) in (typing.Union, types.UnionType)
    if typing.get_origin(one.type) is typing.Literal:
        words = ", ".join(f"`{item}`" for item in typing.get_args(one.type))
    else:
        words = " or ".join(map(describe_type, typing.get_args(one.type) if union else [one.type])).replace("'", "`")
    if one.at_least is not None and one.at_most is not None:
        return f"{words}, {one.at_least:g} to {one.at_most:g}"
    return words if one.at_least is None else f"{words}, at least {one.at_least:g}"


def test_the_page_of_settings_says_what_the_code_does():
    page = ROOT / "docs" / "settings.md"
    if os.environ.get("UPDATE_GOLDENS"):
        page.write_text(settings_page(), "utf-8")
    assert page.read_text("utf-8") == settings_page(), (
        "run: UPDATE_GOLDENS=1 pytest tests/engine/settings/test_config.py"
    )
