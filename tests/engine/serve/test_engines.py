"""What the server tells whoever asks a model, while its engine waits for room, dies, or is replaced."""

import asyncio
import json
import os
import socket
import threading
import time

import pytest

from engine.base.engine_folder import EngineFolder, EngineState, engine_folders
from engine.base.units import MIB
from engine.base.workspace import Workspace
from engine.models.device_limits import ANSWER_CACHE_BYTES
from engine.plan.engine_memory import answering_bytes
from engine.plan.memory import CUDA_CONTEXT_BYTES, EstimateInputs
from engine.runs.model_refs import find_model_refs
from engine.serve.api_errors import ApiError
from engine.serve.engines import Engines
from engine.settings.presets import STARTER_MODEL


class Engine(threading.Thread):
    """Stands in for daemon and engine: takes the wish, then plays a part for each connection."""

    def __init__(self, workspace: Workspace, *parts) -> None:
        super().__init__(daemon=True)
        self.workspace, self.parts, self.wish = workspace, parts, None
        self.start()

    def run(self) -> None:
        engines = self.workspace.private / "engines"
        deadline = time.monotonic() + 20
        while self.wish is None and time.monotonic() < deadline:
            for path in engines.iterdir() if engines.is_dir() else ():
                self.folder = EngineFolder(path)
                self.wish = self.folder.take_wish()
            time.sleep(0.01)
        for part in self.parts:
            part(self.folder)


def waits(folder: EngineFolder) -> None:
    folder.put_state(EngineState("waits", "starter", "waits for room: needs ~9.0 GiB, used by run 12", 7.0))


def answers(*lines: dict):
    def part(folder: EngineFolder) -> None:
        with folder.listen() as listening:
            connection, _ = listening.accept()
            folder.hang_up()
        with connection:
            connection.recv(1 << 20)
            connection.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    return part


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    workspace = Workspace(tmp_path)
    (ref,) = find_model_refs(workspace, ["starter"])

    async def ask() -> list[dict]:
        return [line async for line in Engines(workspace).ask(ref, {"prompts": ["a"]})]

    return workspace, lambda: asyncio.run(ask())


def test_where_there_is_no_room_the_answer_is_503_and_says_what_it_waits_for(asked):
    workspace, ask = asked
    engine = Engine(workspace, waits)
    with pytest.raises(
        ApiError, match=r"cannot be loaded now: waits for room: needs ~9\.0 GiB, used by run 12"
    ) as told:
        ask()
    assert (told.value.status, told.value.headers["retry-after"]) == (503, "7")
    assert engine.wish.base == "starter" and engine.wish.estimate_bytes > engine.wish.cache_bytes > MIB
    assert oct(os.stat(workspace.private / "engines").st_mode)[-3:] == "700"


def test_what_it_needs_is_of_the_device_that_the_daemon_has_seen(asked):
    workspace, ask = asked
    promised = []
    for name in ("NVIDIA H100", "Tesla T4"):  # bfloat16, and not
        workspace.machine_state.parent.mkdir(parents=True, exist_ok=True)
        workspace.machine_state.write_text(json.dumps({"gpus": [{"name": name}]}))
        engine = Engine(workspace, waits)
        with pytest.raises(ApiError):
            ask()
        promised.append(engine.wish)
    assert promised[1].cache_bytes == 2 * promised[0].cache_bytes
    assert promised[1].estimate_bytes > promised[0].estimate_bytes > CUDA_CONTEXT_BYTES


def test_the_starter_model_has_one_engine_by_whatever_name_it_goes(asked):
    workspace, _ = asked

    async def ask(name: str) -> None:
        (ref,) = find_model_refs(workspace, [name])
        with pytest.raises(ApiError):
            await anext(Engines(workspace).ask(ref, {"prompts": ["a"]}))

    for name in ("starter", str(STARTER_MODEL)):
        Engine(workspace, waits)
        asyncio.run(ask(name))
    assert len(engine_folders(workspace)) == 1


def test_what_an_engine_had_not_begun_is_asked_of_the_next_one(asked):
    workspace, ask = asked
    Engine(workspace, answers(), answers({"kind": "begun"}, {"kind": "done"}))
    assert ask() == [{"kind": "begun"}]


def test_what_it_had_begun_ends_with_an_error(asked):
    workspace, ask = asked
    Engine(workspace, answers({"kind": "begun"}), answers({"kind": "begun"}, {"kind": "done"}))
    with pytest.raises(ApiError, match="process has died") as told:
        ask()
    assert told.value.status == 503 and told.value.headers["retry-after"]


def test_running_out_of_memory_is_503_for_that_request(asked):
    workspace, ask = asked
    Engine(workspace, answers({"kind": "error", "status": 503, "message": "no room", "code": None, "param": None}))
    with pytest.raises(ApiError, match="no room") as told:
        ask()
    assert (told.value.status, told.value.code) == (503, "engine_unavailable")


def test_the_promise_is_weights_cache_pass_and_adapters(tmp_path):
    (ref,) = find_model_refs(Workspace(tmp_path), ["starter"])
    narrow = EstimateInputs("cuda", True)
    parts = answering_bytes(ref.config.replace({"method.kind": "lora"}), narrow)
    assert set(parts) == {"weights", "cache", "pass", "adapters", "context"}
    assert 0 < parts["cache"] <= ANSWER_CACHE_BYTES["cuda"]
    assert "adapters" not in answering_bytes(ref.config.replace({"method.kind": "full"}), narrow)
    wide = answering_bytes(ref.config.replace({"method.kind": "lora"}), EstimateInputs("cpu", False))
    assert wide["weights"] == 2 * parts["weights"] and wide["cache"] == 2 * parts["cache"]
    assert answering_bytes(ref.config.replace({"model.name": "nobody/knows"}), narrow) is None


def test_a_socket_is_found_however_deep_the_workspace_lies(tmp_path):
    folder = EngineFolder(tmp_path / ("a" * 100) / ("b" * 100))
    folder.make()
    with folder.listen(), folder.address() as address, socket.socket(socket.AF_UNIX) as client:
        client.connect(address)
    assert oct(os.stat(folder.path / "socket").st_mode)[-3:] == "600"
