"""What people's code does with OpenAI's API, done with ours: files, jobs, models, answers, by the official client."""

import json
import os
import signal
import threading
import time
import urllib.parse

import openai
import pytest

from engine.base.engine_folder import live_engines
from tests.engine.serve.conftest import ROWS, Server, as_jsonl, until_ended

GIVEN = "Hello there my friend"
ASK = [{"role": "user", "content": "say 7"}]


def test_a_job_becomes_a_run_and_its_model_answers(server, client, trained):
    assert (trained.status, trained.error, trained.seed) == ("succeeded", None, 7)
    assert trained.fine_tuned_model == f"ft:starter:work-space:polite:{trained.id.removeprefix('ftjob-')}"
    chosen = trained.hyperparameters
    assert (chosen.n_epochs, chosen.batch_size, chosen.learning_rate_multiplier) == (4, 4, 10)
    assert trained.trained_tokens > 100 and trained.finished_at >= trained.created_at
    answer = client.chat.completions.create(model=trained.fine_tuned_model, messages=ASK, temperature=0)
    assert answer.choices[0].message.content == "yes sir" and answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    number = trained.id.removeprefix("ftjob-")
    config = json.loads((server.workspace.runs / number / "config.json").read_text())
    assert config["run"]["name"] == "starter-polite" and config["train"]["seed"] == 7


def test_a_job_tells_its_events_checkpoints_and_results(client, trained):
    events = [*client.fine_tuning.jobs.list_events(trained.id, limit=7)]
    assert [event.id for event in events] == list(dict.fromkeys(event.id for event in events))
    assert [event.created_at for event in events] == sorted((event.created_at for event in events), reverse=True)
    told = [event.message for event in reversed(events)]
    assert told[0] == f"Created fine-tuning job: {trained.id}" and told[-1] == "The job has successfully completed"
    assert "'gpt-4o-mini-2024-07-18' stands for starter, which is trained." in told
    metrics = [event.data for event in reversed(events) if event.type == "metrics"]
    assert metrics[-1]["step"] == metrics[-1]["total_steps"] == len(metrics) - 1
    checkpoints = [*client.fine_tuning.jobs.checkpoints.list(trained.id, limit=1)]
    assert [c.step_number for c in checkpoints] == sorted((c.step_number for c in checkpoints), reverse=True)
    last = checkpoints[0]
    assert last.fine_tuned_model_checkpoint == f"{trained.fine_tuned_model}:ckpt-step-{last.step_number}"
    assert last.metrics.train_loss < 0.5
    lines = client.files.content(trained.result_files[0]).text.splitlines()
    assert lines[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert len(lines) == 1 + last.step_number
    answer = client.chat.completions.create(model=checkpoints[-1].fine_tuned_model_checkpoint, messages=ASK)
    assert answer.model == checkpoints[-1].fine_tuned_model_checkpoint


def test_jobs_are_found_by_their_metadata(client, trained):
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"team": "support"})] == [trained.id]
    assert not [*client.fine_tuning.jobs.list(metadata={"team": "nobody"})]


def test_the_wrong_line_of_a_file_is_named_and_nothing_is_trained(client):
    bad = as_jsonl([{"messages": [{"role": "user", "content": "x"}]}]) + b"not json\n"
    file = client.files.create(file=("../../bad.jsonl", bad), purpose="fine-tune")
    job = until_ended(client, client.fine_tuning.jobs.create(model="starter", training_file=file.id).id)
    assert job.status == "failed" and job.error.param == "training_file"
    assert job.error.code == "invalid_training_file" and "line 2: no JSON value" in job.error.message
    assert "/" not in job.error.message.replace("and/or", "")


def test_a_file_that_is_deleted_while_its_job_waits_is_trained_on(client):
    file = client.files.create(file=("yes.jsonl", as_jsonl(ROWS[:8])), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="starter", training_file=file.id, hyperparameters={"n_epochs": 1})
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    assert until_ended(client, job.id).status == "succeeded"


def test_what_is_uploaded_comes_back_byte_by_byte(client):
    content = bytes(range(256)) * 5000 + "中文".encode()
    file = client.files.create(file=("x" * 4000 + "\n.jsonl", content), purpose="user_data")
    assert file.bytes == len(content) and len(file.filename) <= 255
    assert client.files.content(file.id).read() == content
    assert file.id in [entry.id for entry in client.files.list(purpose="user_data", limit=1)]
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a", b"b"), purpose="nonsense")
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.files.create(file=("a", b""), purpose="fine-tune")


def test_a_request_that_is_sent_three_times_is_one_job(server, client):
    file = client.files.create(file=("yes.jsonl", as_jsonl(ROWS[:9])), purpose="fine-tune")
    before = len([*client.fine_tuning.jobs.list()])
    body = json.dumps({"model": "starter", "training_file": file.id, "hyperparameters": {"n_epochs": 1}}).encode()
    made: list[str] = []

    def post(number: int) -> None:
        answer = server.ask("POST", "/v1/fine_tuning/jobs", body, x_stainless_retry_count=str(number))
        made.append(answer.json["id"])

    threads = [threading.Thread(target=post, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1 and len([*client.fine_tuning.jobs.list()]) == before + 1
    again = server.ask("POST", "/v1/fine_tuning/jobs", body)  # not marked as a retry: another wish
    assert again.json["id"] not in made
    client.fine_tuning.jobs.cancel(again.json["id"])


def test_a_job_is_paused_resumed_and_cancelled(client):
    file = client.files.create(file=("yes.jsonl", as_jsonl(ROWS)), purpose="fine-tune")
    jobs = client.fine_tuning.jobs
    job = jobs.create(model="starter", training_file=file.id, hyperparameters={"n_epochs": 50, "batch_size": 1})
    deadline = time.monotonic() + 60
    while not any(event.type == "metrics" for event in jobs.list_events(job.id)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert jobs.retrieve(job.id).status == "running"
    assert jobs.pause(job.id).status == "queued"
    while True:
        try:
            assert jobs.resume(job.id).status in ("queued", "running")
            break
        except openai.ConflictError:  # it is saving
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="already been cancelled"):
        jobs.cancel(job.id)


def test_a_model_is_found_by_however_its_name_is_spelt(server, client, trained):
    name = trained.fine_tuned_model
    for spelt in (name, urllib.parse.quote(name, safe=""), name.replace(":", "%3A")):
        assert server.ask("GET", f"/v1/models/{spelt}").json["id"] == name
    names = [model.id for model in client.models.list()]
    assert names[0] == "starter" and name in names and len(names) == len(set(names))
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="ft:gpt-4o:org::abc", messages=ASK)
    assert caught.value.code == "model_not_found" and caught.value.param == "model"
    for path in ("/etc/passwd", "../starter", str(server.workspace.root)):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=path, messages=ASK)


def test_pages_end_and_nothing_follows_what_is_not_there(server, client, trained):
    first = server.ask("GET", f"/v1/fine_tuning/jobs/{trained.id}/events?limit=2").json
    assert len(first["data"]) == 2 and first["has_more"] is True
    after = server.ask("GET", f"/v1/fine_tuning/jobs/{trained.id}/events?after=nothing").json
    assert after == {"object": "list", "data": [], "has_more": False}
    assert server.ask("GET", "/v1/files?limit=10001").status == server.ask("GET", "/v1/files?limit=x").status == 400
    assert server.ask("GET", f"/v1/files?limit={'0' * 5000}1").status == 400


def test_answers_are_streamed_in_order_and_counted_where_asked(client, trained):
    stream = client.chat.completions.create(
        model=trained.fine_tuned_model, messages=ASK, n=3, stream=True, stream_options={"include_usage": True}, seed=3
    )
    chunks = [*stream]
    assert [chunk.choices[0].index for chunk in chunks[:3]] == [0, 1, 2]
    assert all(chunk.choices[0].delta.role == "assistant" for chunk in chunks[:3])
    assert len({chunk.id for chunk in chunks}) == 1
    finished = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert len(finished) == 3 and chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 3
    texts = [
        "".join(c.choices[0].delta.content or "" for c in chunks if c.choices and c.choices[0].index == i)
        for i in range(3)
    ]
    whole = client.chat.completions.create(model=trained.fine_tuned_model, messages=ASK, n=3, seed=3)
    assert [choice.message.content for choice in whole.choices] == texts
    plain = [*client.chat.completions.create(model="starter", messages=ASK, stream=True, max_tokens=1, temperature=0)]
    assert all(chunk.usage is None for chunk in plain) and plain[-1].choices[0].finish_reason == "length"


def test_how_an_answer_is_drawn_is_the_requests_to_say(client):
    asked = {"model": "starter", "messages": [{"role": "user", "content": "Tell me more"}], "max_tokens": 12}

    def answer(**options):
        options = asked | options
        return client.chat.completions.create(**options).choices[0]

    greedy = answer(temperature=0).message.content
    assert answer(temperature=0).message.content == greedy == answer(top_p=0).message.content
    assert answer(seed=1).message.content == answer(seed=1).message.content
    assert len({answer(seed=seed, temperature=2).message.content for seed in range(4)}) > 1
    told = answer(temperature=0, logprobs=True, top_logprobs=3).logprobs.content
    assert "".join(entry.token for entry in told) == greedy
    assert all(len(entry.top_logprobs) == 3 and entry.top_logprobs[0].logprob == entry.logprob for entry in told)
    piece = greedy[2:5]
    stopped = answer(temperature=0, stop=[piece, "never"])
    assert stopped.message.content == greedy.partition(piece)[0] and stopped.finish_reason == "stop"
    cut = answer(temperature=0, max_tokens=1)
    assert cut.finish_reason == "length" and greedy.startswith(cut.message.content)


def test_text_goes_on_and_a_given_text_is_scored(client):
    both = client.completions.create(model="starter", prompt=["Hello", [5, 6, 7]], max_tokens=3, n=2, temperature=0)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.choices[0].text == both.choices[1].text and both.usage.completion_tokens <= 12
    scored = client.completions.create(
        model="starter", prompt="Hello there my friend", max_tokens=0, echo=True, logprobs=1
    )
    told = scored.choices[0].logprobs
    assert scored.choices[0].text == "".join(told.tokens) == GIVEN
    assert told.text_offset[0] == 0 and len(told.token_logprobs) == len(told.tokens)
    assert all(value < 0 for value in told.token_logprobs[1:])


def test_a_response_goes_on_from_an_earlier_one(client, trained):
    first = client.responses.create(model=trained.fine_tuned_model, input="say 3", temperature=0)
    assert first.output_text == "yes sir" and first.status == "completed"
    second = client.responses.create(
        model=trained.fine_tuned_model, input="say 4", previous_response_id=first.id, temperature=0
    )
    assert second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(first.id).output_text == first.output_text
    items = client.responses.input_items
    assert [item.content[0].text for item in items.list(second.id, limit=1)] == ["say 4", "yes sir", "say 3"]
    assert [item.role for item in items.list(second.id, order="asc").data] == ["user", "assistant", "user"]
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": "x"}'}
    result = {"type": "function_call_output", "call_id": "c1", "output": "seen"}
    asked = [{"role": "user", "content": "look"}, call, result]
    third = client.responses.create(model="starter", input=asked, instructions="Be brief.", max_output_tokens=2)
    assert [item.type for item in items.list(third.id)] == ["function_call_output", "function_call", "message"]
    assert items.list(third.id).data[1].arguments == '{"at": "x"}'
    with pytest.raises(openai.BadRequestError, match="Only background responses"):
        client.responses.cancel(first.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="starter", input="x", previous_response_id=first.id)
    with client.responses.create(model=trained.fine_tuned_model, input="say 3", temperature=0, stream=True) as stream:
        events = [*stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "yes sir"
    assert events[-1].type == "response.completed" and events[-1].response.output_text == "yes sir"


def test_a_completion_is_kept_where_that_is_asked_for(server, client, trained):
    chats = client.chat.completions
    plain = chats.create(model="starter", messages=ASK, max_tokens=2)
    kept = chats.create(model=trained.fine_tuned_model, messages=ASK, temperature=0, store=True, metadata={"a": "b"})
    stream = chats.create(model="starter", messages=ASK, max_tokens=3, store=True, stream=True)
    (streamed,) = {chunk.id for chunk in stream}
    assert [entry.id for entry in chats.list(limit=1)] == [kept.id, streamed]
    assert [entry.id for entry in chats.list(metadata={"a": "b"}, model=trained.fine_tuned_model)] == [kept.id]
    assert chats.retrieve(kept.id).choices[0].message.content == "yes sir"
    listed = server.ask("GET", f"/v1/chat/completions/{kept.id}/messages").json["data"]
    assert [(message["role"], message["content"]) for message in listed] == [("user", "say 7")]
    assert chats.update(kept.id, metadata={"thumb": "up"}).metadata == {"thumb": "up"}
    assert chats.retrieve(kept.id).metadata == {"thumb": "up"}
    assert chats.delete(kept.id).deleted
    for gone in (kept.id, plain.id):
        with pytest.raises(openai.NotFoundError):
            chats.retrieve(gone)


def test_the_older_route_makes_the_same_jobs(server, client):
    file = client.files.create(file=("old.jsonl", as_jsonl(ROWS[:8])), purpose="fine-tune")
    body = json.dumps({"training_file": file.id, "model": "curie", "n_epochs": 1, "suffix": "old"}).encode()
    made = server.ask("POST", "/v1/fine-tunes", body).json
    assert made["object"] == "fine-tune" and made["status"] == "pending" and made["hyperparams"]["n_epochs"] == 1
    job = until_ended(client, f"ftjob-{made['id'].removeprefix('ft-')}")
    now = server.ask("GET", f"/v1/fine-tunes/{made['id']}").json
    assert now["status"] == "succeeded" and now["fine_tuned_model"] == job.fine_tuned_model
    followed = server.ask("GET", f"/v1/fine-tunes/{made['id']}/events?stream=true").body.decode()
    assert followed.endswith("data: [DONE]\n\n") and "successfully completed" in followed
    assert made["id"] in [entry["id"] for entry in server.ask("GET", "/v1/fine-tunes").json["data"]]


def test_an_engine_that_is_killed_ends_streams_with_an_error_and_comes_back(server, client):
    endless = {"6143": -100, "6141": -100}
    stream = client.chat.completions.create(
        model="starter", messages=ASK, stream=True, max_tokens=1500, logit_bias=endless
    )
    next(iter(stream))
    (engine,) = live_engines(server.workspace)
    os.kill(engine.use.pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match="process has died"):
        for _ in stream:
            pass
    answer = client.with_options(max_retries=3).chat.completions.create(model="starter", messages=ASK, max_tokens=2)
    assert answer.choices[0].message.content is not None
    assert server.process.poll() is None


def test_models_are_deleted_to_the_trash(server: Server, client):
    file = client.files.create(file=("yes.jsonl", as_jsonl(ROWS[:8])), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="starter", training_file=file.id, hyperparameters={"n_epochs": 1})
    name = until_ended(client, job.id).fine_tuned_model
    assert client.models.delete(name).deleted
    assert name not in [model.id for model in client.models.list()]
    assert (server.workspace.trash / job.id.removeprefix("ftjob-")).is_dir()
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete("starter")
