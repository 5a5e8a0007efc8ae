"""Fine-tune on chats.jsonl and ask the model that comes of it, by OpenAI's client (`pip install openai`).

finetop serve --detach
eval "$(finetop serve env)"
python client.py
"""

import os
import sys
import time
from pathlib import Path

from openai import OpenAI

DATA = Path(__file__).with_name("chats.jsonl")

if "OPENAI_BASE_URL" not in os.environ:
    sys.exit('No server is named. In this folder:\n  finetop serve --detach\n  eval "$(finetop serve env)"')

client = OpenAI()
file = client.files.create(file=DATA.open("rb"), purpose="fine-tune")
job = client.fine_tuning.jobs.create(model="gpt-4o-mini-2024-07-18", training_file=file.id, suffix="client")
print(f"{job.id} trains on {file.id}")

told: set[str] = set()
while True:
    for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=100).data):
        if event.id not in told:
            told.add(event.id)
            print(f"  {event.message}")
    job = client.fine_tuning.jobs.retrieve(job.id)
    if job.status in ("succeeded", "failed", "cancelled"):
        break
    time.sleep(1)
if job.fine_tuned_model is None:
    sys.exit(f"{job.id} {job.status}: {job.error.message if job.error else ''}")

print(f"model: {job.fine_tuned_model}")
question = "What is finetop?"
completion = client.chat.completions.create(
    model=job.fine_tuned_model, messages=[{"role": "user", "content": question}], max_tokens=60
)
print(f"{question} {completion.choices[0].message.content}")
