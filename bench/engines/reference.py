"""What the loss must be: rows one at a time through the plain model, whole logits, no engine of anybody's.

Job keys beside the usual: `steps`, a list of lists of rows. Without `train`, the loss of each list on the untouched
model, in float64 on the CPU and float32 on CUDA. With `train`, the losses of as many optimizer steps in `dtype`, under
autocast where the job has one.
"""

import torch
from observe import read_job, read_rows, set_up_torch, write_result
from transformers import AutoModelForCausalLM

job = read_job()
set_up_torch(job)
rows = read_rows(job)
training = job["train"]
exact = torch.float64 if job["device"] == "cpu" else torch.float32
dtype = getattr(torch, job["dtype"]) if training else exact
autocast = getattr(torch, job["autocast"]) if job.get("autocast") else None
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, attn_implementation="eager").to(job["device"])
model.requires_grad_(training)


def summed_loss(index: int) -> torch.Tensor:
    ids = torch.tensor(rows[index]["ids"], device=job["device"])
    taught = torch.tensor(rows[index]["supervised"], device=job["device"], dtype=torch.bool)[1:]
    with torch.autocast(job["device"], autocast, enabled=autocast is not None):
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    if autocast is not None:
        logits = logits.float()
    if not training:
        logits = logits.to(exact)
    losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
    return losses[taught].sum()


optimizer = torch.optim.AdamW(model.parameters(), lr=job["learning_rate"], weight_decay=0.0) if training else None
losses = []
for step in job["steps"]:
    supervised = sum(sum(rows[index]["supervised"]) for index in step)
    total = 0.0
    for index in step:
        loss = summed_loss(index) / supervised
        if training:
            loss.backward()
        total += float(loss.detach())
    losses.append(total)
    if training:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
write_result(job, [{"loss": loss} for loss in losses])
