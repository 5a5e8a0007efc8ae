"""Run as a program, with a job in JSON on stdin: what llama.cpp makes of a GGUF file, in JSON on stdout.

In a process of its own, since llama.cpp ends the process where it meets what it does not expect. Its answer to
`texts` are their tokens, special tokens parsed; to `prompts`, lists of tokens, what it writes by the likeliest token
until it stops, with the reason; to `chats`, what its chat template makes of them.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any


def run(file: Path, **job: Any) -> dict[str, Any]:
    """Raises AssertionError with llama.cpp's own words where it does not load the file."""
    job = {"file": str(file), "texts": [], "prompts": [], "chats": [], "new": 24, **job}
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(job), capture_output=True, text=True, timeout=120, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "error loading" in line or "ASSERT" in line]
    assert done.returncode == 0, f"{file.name}: {' '.join(complaints) or done.stderr[-2000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def _main() -> None:
    import xllamacpp

    job = json.load(sys.stdin)
    params = xllamacpp.CommonParams()
    params.model.path = job["file"]
    params.n_ctx, params.n_parallel, params.warmup, params.cpuparams.n_threads = 512, 1, False, 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)

    def post(path: str, **body: Any) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request))

    said: dict[str, Any] = {"texts": [], "answers": [], "chats": []}
    for text in job["texts"]:
        said["texts"].append(post("/tokenize", content=text, add_special=True, parse_special=True)["tokens"])
    for prompt in job["prompts"]:
        greedy = {"temperature": 0, "n_predict": job["new"], "return_tokens": True, "cache_prompt": False}
        answer = post("/completion", prompt=prompt, **greedy)
        said["answers"].append({"tokens": answer["tokens"], "stopped": answer["stop_type"]})
    for messages in job["chats"]:
        said["chats"].append(post("/apply-template", messages=messages)["prompt"])
    print(json.dumps(said), flush=True)
    os._exit(0)  # its server's threads are not waited for


if __name__ == "__main__":
    _main()
