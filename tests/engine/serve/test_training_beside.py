"""A run that trains beside a server that answers is the run that it would be alone."""

import threading

import pytest
from openai import OpenAI

from engine.runs import journal
from tests.engine.serve.conftest import ROWS, Server, as_jsonl, until_ended

CLIENTS = 4


def losses(server: Server, job_id: str) -> list[tuple[int, float]]:
    events, _ = journal.read(server.workspace.runs / job_id.removeprefix("ftjob-"))
    return [(event["step"], event["values"]["train/loss"]) for event in events if event["kind"] == "metric"]


@pytest.mark.long
def test_its_losses_are_the_same_to_the_last_bit(server: Server, client: OpenAI):
    file = client.files.create(file=("yes.jsonl", as_jsonl(ROWS)), purpose="fine-tune")

    def train() -> list[tuple[int, float]]:
        hyperparameters = {"n_epochs": 10, "batch_size": 4}
        job = client.fine_tuning.jobs.create(
            model="starter", training_file=file.id, seed=7, hyperparameters=hyperparameters
        )
        assert until_ended(client, job.id, 300).status == "succeeded"
        return losses(server, job.id)

    alone = train()
    answered, ended = [0] * CLIENTS, threading.Event()

    def ask(number: int) -> None:
        while not ended.is_set():
            messages = [{"role": "user", "content": f"say {number}"}]
            client.chat.completions.create(model="starter", messages=messages, max_tokens=16)
            answered[number] += 1

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for asker in askers:
        asker.start()
    try:
        beside = train()
    finally:
        ended.set()
        for asker in askers:
            asker.join()
    assert len(alone) >= 50 and beside == alone
    assert min(answered) > 1
