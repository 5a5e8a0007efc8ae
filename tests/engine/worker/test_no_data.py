"""Where no data is given, the sample that ships is taken; and a file of settings in YAML is named."""

import json

import pytest

from engine.base.errors import InputError
from engine.cli.main import main
from engine.cli.settings_flags import with_sample
from engine.runs.run_folder import check_inputs
from engine.settings.config_file import read_config_file
from engine.settings.resolve import Layer, read_run, resolve


def test_without_data_the_sample_that_ships_is_taken_and_said(capsys):
    for objective, name in (("sft", "intents.csv"), ("pretrain", "notes.txt")):
        layers = with_sample([Layer("--objective", {"method.objective": objective})])
        resolved = resolve(layers)
        check_inputs(resolved.config)
        assert resolved.config.data.files[0].endswith(name) and resolved.origin["data.files"] == "sample"
        assert name in (said := capsys.readouterr().err) and "no data is given" in said and "--data-file" in said


@pytest.mark.parametrize(
    "given", [{"data.files": ["a.csv"]}, {"data.val_files": ["a.csv"]}, {"data.map": {"prompt": "q"}}]
)
def test_where_something_is_said_of_data_it_stays_what_it_is(given, capsys):
    assert with_sample([Layer("flags", given)]) == [Layer("flags", given)] and capsys.readouterr().err == ""


def test_add_and_sweep_take_it_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    words = ["--workspace", str(tmp_path), "--preset", "quick"]
    assert main(["add", *words]) == 0 and main(["sweep", *words, "--grid", "lora.r=4,8"]) == 0
    assert capsys.readouterr().err.count("the sample that ships") == 2
    for run in (1, 2, 3):
        assert read_run(tmp_path / "runs" / str(run)).config.data.files[0].endswith("intents.csv")


def test_add_tells_what_will_not_be_as_asked_and_refuses_what_cannot_be(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    words = ["add", "--workspace", str(tmp_path)]
    assert main([*words, "--set", "lora.targets=[q_proj]"]) == 2
    assert "[q_proj] matches nothing; this model has q_proj" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main([*words, "--method", "full", "--set", "lora.r=8"]) == 0
    assert "lora.r has no effect: method full has no adapter" in capsys.readouterr().err
    assert main(["sweep", "--workspace", str(tmp_path), "--grid", 'targets=["q_proj"],["none"]']) == 2


def test_yaml_is_called_yaml_with_the_way_out(tmp_path):
    for name, content in (("a.yaml", "train:\n  epochs: 3\n"), ("b.YML", "- 1\n"), ("c.yaml", "lr = 3")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match="YAML") as caught:
            read_config_file(tmp_path / name)
        assert "TOML" in caught.value.hint and "yaml.safe_load" in caught.value.hint
    (tmp_path / "d.yaml").write_text(json.dumps({"train": {"epochs": 3}}))
    assert read_config_file(tmp_path / "d.yaml") == {"train.epochs": 3}, "JSON is YAML too"
