"""Other people's programs, as docs/clients.md shows them, against a server: each block of that page is run as it is."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from engine.settings.presets import STARTER_MODEL
from tests.engine.serve.conftest import Server, as_jsonl, end_server, start_server, until_ended

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "bench"))

import environments  # noqa: E402  the scripts in bench/ are no package

PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
TEMPLATE = (
    "{%- if tools %}{{- '<|im_start|>system\\n# Tools' }}"
    "{%- for tool in tools %}{{- '\\n' + tool.function.name }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}"
    "{%- for call in message.tool_calls or [] %}{{- '<tool_call>\\n' + (call.function | tojson) + '\\n</tool_call>' }}"
    "{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Of a model that calls tools; that of the starter model does not."""
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LOOP = {
    "tools": [{"type": "function", "function": {"name": "weather", "description": "x", "parameters": CITY}}],
    "messages": [
        {"role": "user", "content": "How is Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny."},
    ],
}
QUESTIONS = [
    {"question": f"What is the capital of {country}?", "choices": ["Rome", "Oslo", "Cairo"], "answer": answer}
    for answer, country in enumerate(["Italy", "Norway", "Egypt"])
]
TASK = """
dataset_path: json
dataset_kwargs: {data_files: {test: capitals.jsonl}}
test_split: test
"""
SCORED = """task: capitals
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""
WRITTEN = """task: capitals_said
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list: [{metric: exact_match}]
"""


def block(heading: str, number: int = 0) -> tuple[str, str]:
    """The language and the text of that block of code in the page."""
    section = re.split(rf"^## {re.escape(heading)}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)[number]


def run(code: tuple[str, str], python: str, server: Server, folder: Path, **variables: str) -> str:
    """What it prints with the variables that `finetop serve env` prints, in the environment of that interpreter."""
    language, text = code
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path}
    environment |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_BASE": server.url, "OPENAI_API_KEY": server.key}
    command = [python, "-c", text] if language == "python" else ["sh", "-euc", text]
    done = subprocess.run(command, cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def python_of(name: str) -> str:
    cache = environments.cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with open(cache / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests run beside each other
            return environments.python_of(name)
    except (subprocess.CalledProcessError, OSError) as error:
        pytest.skip(f"the environment {name} cannot be made here: {error}")


def answer_of(client: OpenAI, model: str) -> str:
    messages = [{"role": "user", "content": "Where is my card?"}]
    chosen = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=20)
    return chosen.choices[0].message.content or ""


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose base has a template with tools."""
    root = tmp_path_factory.mktemp("calling")
    shutil.copytree(STARTER_MODEL, root / "base")
    (root / "base" / "chat_template.jinja").write_text(TEMPLATE)
    (root / "serve.toml").write_text(f"default = {json.dumps(str(root / 'base'))}\n")
    running = start_server(root)
    yield running
    end_server(running)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server: Server, tmp_path: Path):
    answer = json.loads(run(block("curl"), sys.executable, server, tmp_path, MODEL="starter"))
    assert answer["model"] == "starter" and answer["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.long
def test_langchain_chats(server: Server, client: OpenAI, tmp_path: Path):
    python = python_of("langchain")
    lines = run(block("LangChain"), python, server, tmp_path, MODEL="starter").splitlines()
    answer = answer_of(client, "starter")
    assert answer and lines == [answer, answer, str([answer, answer])]


@pytest.mark.long
def test_an_agent_of_langchain_calls_a_tool_and_goes_on_from_what_it_says(calling: Server, tmp_path: Path):
    python = python_of("langchain")
    client = calling.client()
    file = client.files.create(file=("calls.jsonl", as_jsonl([LOOP] * 4)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini",
        training_file=file.id,
        seed=3,
        hyperparameters={"n_epochs": 50, "batch_size": 1, "learning_rate_multiplier": 10},
    )
    model = until_ended(client, job.id, 600).fine_tuned_model
    lines = run(block("LangChain", 1), python, calling, tmp_path, MODEL=model).splitlines()
    assert [line.split()[0] for line in lines] == ["human", "ai", "tool", "ai"], lines
    assert "'name': 'weather', 'args': {'city': 'Rome'}" in lines[1]
    assert lines[2].split() == ["tool", "sunny"] and lines[3].strip() == "ai It is sunny."


@pytest.mark.long
def test_lm_eval_scores_and_asks(server: Server, tmp_path: Path):
    python = python_of("lm_eval")
    (tmp_path / "capitals.jsonl").write_bytes(as_jsonl(QUESTIONS))
    (tmp_path / "capitals.yaml").write_text(SCORED + TASK)
    (tmp_path / "capitals_said.yaml").write_text(WRITTEN + TASK)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    scored = run(
        block("lm-evaluation-harness"), python, server, tmp_path,
        MODEL="starter", TOKENIZER=str(STARTER_MODEL), **offline,
    )  # fmt: skip
    assert re.search(r"\|capitals *\|.*\|acc *\|.*\|0\.(0000|3333|6667)\||\|1\.0000\|", scored), scored
    written = run(block("lm-evaluation-harness", 1), python, server, tmp_path, MODEL="starter", **offline)
    assert re.search(r"\|capitals_said\|.*\|exact_match\|", written), written
