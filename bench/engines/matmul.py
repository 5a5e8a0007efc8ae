"""The card's own measure: bf16 products of two 8192 x 8192 matrices per second, in floating-point operations."""

import time

import torch
from observe import read_job, write_result

SIDE, WARM_UPS, TIMES = 8192, 5, 20

job = read_job()
left, right = (torch.randn(SIDE, SIDE, device=job["device"], dtype=torch.bfloat16) for _ in range(2))
for _ in range(WARM_UPS):
    left @ right
torch.cuda.synchronize()
began = time.perf_counter()
for _ in range(TIMES):
    left @ right
torch.cuda.synchronize()
seconds = time.perf_counter() - began
write_result(job, [], flops_per_s=TIMES * 2 * SIDE**3 / seconds, card=torch.cuda.get_device_name())
