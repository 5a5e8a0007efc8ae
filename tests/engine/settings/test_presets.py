"""Every shipped preset loads, resolves, and says for what it is, what it needs and how to run it."""

import json
import shlex

import pytest

from engine.cli.main import build_parser, main
from engine.present.text import cells
from engine.settings.presets import SHIPPED, all_presets, find_preset
from engine.settings.resolve import Layer, resolve
from engine.settings.schema import SETTINGS

SHIPPED_NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))
MODEL_PRESETS = {
    "qwen2.5-0.5b-lora": "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen2.5-1.5b-lora": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen2.5-1.5b-qlora": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen2.5-7b-lora": "Qwen/Qwen2.5-7B-Instruct",
    "qwen2.5-7b-qlora": "Qwen/Qwen2.5-7B-Instruct",
    "qwen2.5-14b-lora": "Qwen/Qwen2.5-14B-Instruct",
    "qwen2.5-14b-qlora": "Qwen/Qwen2.5-14B-Instruct",
    "glm4-9b-lora": "THUDM/glm-4-9b-chat-hf",
    "glm4-9b-qlora": "THUDM/glm-4-9b-chat-hf",
    "llama3-8b-lora": "meta-llama/Meta-Llama-3-8B-Instruct",
    "llama3-8b-qlora": "meta-llama/Meta-Llama-3-8B-Instruct",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's own folder of presets."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("FINETOP_PRESETS", str(folder))
    return folder


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_every_shipped_preset_loads_and_resolves(name):
    preset = find_preset(name)
    settings = preset.settings()
    assert settings and set(settings) <= set(SETTINGS)
    resolved = resolve([Layer(f"preset {name}", settings)])
    assert all(resolved.origin[path] == f"preset {name}" for path in settings)


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_every_shipped_preset_says_for_what_what_it_needs_and_how_to_run_it(name):
    preset = find_preset(name)
    lines = preset.head.splitlines()
    assert 20 < len(preset.summary) <= 120 and preset.summary.endswith(".")
    assert any(line.startswith("Needs: ") for line in lines)
    (run,) = (line.removeprefix("Run: ") for line in lines if line.startswith("Run: "))
    program, *words = shlex.split(run)
    assert program == "finetop"
    options = build_parser().parse_args(words)
    assert getattr(options, "preset", name) == name


def test_the_sizes_people_use_are_there_with_their_names_on_the_hub():
    assert MODEL_PRESETS.keys() <= set(SHIPPED_NAMES)
    for name, hub in MODEL_PRESETS.items():
        config = resolve([Layer(name, find_preset(name).settings())]).config
        assert config.model.name == hub
        assert config.method.kind == name.rsplit("-", 1)[1]
        assert "about" in find_preset(name).head and "From: " in find_preset(name).head
        assert not config.model.trust_remote_code


@pytest.mark.parametrize("name", sorted(MODEL_PRESETS))
def test_the_memory_a_preset_claims_holds_its_weights_and_adapter(name):
    """The head's sum must not be below what it is the sum of: weights, and 16 bytes a trained number."""
    import re

    head = " ".join(find_preset(name).head.split())
    total = float(re.search(r"about ([\d.]+) GiB in all", head)[1])
    weights = float(re.search(r"([\d.]+) GiB of weights", head)[1])
    adapter, trained = re.search(r"([\d.]+) GiB for an adapter of (\d+)M", head).groups()
    billions = float(re.search(r"([\d.]+)B by", head)[1])
    gib = 2**30 / 10**9
    assert float(adapter) * gib == pytest.approx(int(trained) * 16 / 1000, abs=0.1)
    assert weights + float(adapter) < total < weights + float(adapter) + 4.9
    low, high = (1.9, 2.3) if name.endswith("-lora") else (0.55, 0.9)
    assert low * billions < weights * gib < high * billions


def test_presets_of_ones_own_show_up_by_name_and_win(own, capsys):
    (own / "mine.toml").write_text("# For my notes.\n[train]\nepochs = 9\n")
    (own / "quick.toml").write_text("# My own quick.\n[train]\nbatch_size = 3\n")
    assert main(["presets"]) == 0
    shown = capsys.readouterr().out
    assert "mine" in shown and "For my notes." in shown and "My own quick." in shown
    assert find_preset("quick").settings() == {"train.batch_size": 3}
    assert str(own) in shown


def test_presets_that_cannot_be_used_are_listed_with_the_reason(own, capsys):
    (own / "破.toml").write_text("[train\n")
    (own / "错.toml").write_text("# For my notes.\n[lora]\nr = -3\nrr = 2\n")
    (own / "短.toml").write_text("[lora]\nr = 4\n")
    assert main(["presets"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "cannot be used: not TOML" in rows["破"]
    assert "lora.r is -3" in rows["错"] and "did you mean 'lora.r'?" in rows["错"]
    assert "lora.r = 4" in rows["短"] and cells(rows["短"].split("lora")[0]) == len(rows["quick"].split("A first")[0])


def test_an_unknown_preset_is_answered_with_the_nearest_name(own, capsys):
    (own / "medical.toml").write_text("[train]\nepochs = 2\n")
    assert main(["train", "--preset", "medcial"]) == 2
    assert "did you mean 'medical'?" in capsys.readouterr().err
    assert main(["train", "--preset", "./my.toml"]) == 2
    assert "--config ./my.toml" in capsys.readouterr().err


def test_one_is_shown_with_its_head_its_settings_and_its_place(capsys):
    assert main(["presets", "quick"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("A first look") and "train.epochs = 1" in shown and shown.rstrip().endswith("quick.toml")


def test_presets_as_json(own, capsys):
    (own / "broken.toml").write_text("# Broken.\n[train\n")
    assert main(["presets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["quick"]["settings"]["train.batch_size"] == 2
    assert "not TOML" in rows["broken"]["problem"]
    assert main(["presets", "broken", "--json"]) == 2
    assert "broken.toml: not TOML" in capsys.readouterr().err
    assert main(["train", "--preset", "broken"]) == 2
    assert len(all_presets()) == len(SHIPPED_NAMES) + 1
