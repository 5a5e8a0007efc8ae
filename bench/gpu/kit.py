"""What every measurement is given: the device, the size, folders, models and data made from a seed."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fixture import Fixture

from gpu.findings import NotHere
from gpu.records import ROOT

MARK = "FINETOP_GPU_KIT"
"""In the environment of every process of a kit, and of what these start."""
CHATS, TINY_CHATS = 512, 40
MEAN_TOKENS = 241.3
"""Of a chat; a fifth of its tokens is supervised."""


@dataclass(frozen=True)
class Kit:
    device: str
    """'cuda' or 'cpu'."""
    size: str
    """'full': the shapes of real models; 'tiny': two layers for all of them."""
    out: Path
    scratch: Path
    """Models, data and runs; kept from one command to the next."""

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def tiny(self) -> bool:
        return self.size == "tiny"

    @property
    def passing(self) -> Path:
        """For what one measurement needs and leaves: emptied before the next, also after one that was killed."""
        return self.scratch / "passing"

    @property
    def mark(self) -> str:
        return str(self.scratch)

    def words(self) -> list[str]:
        """The options a process for one measurement is started with."""
        return ["--device", self.device, "--size", self.size, "--out", str(self.out), "--scratch", str(self.scratch)]

    def environment(self, **changes: str) -> dict[str, str]:
        """Without a hub, the user's presets or a home; the packages on PYTHONPATH go along."""
        path = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        made = os.environ | {
            MARK: self.mark,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(self.passing),
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
            "XDG_CONFIG_HOME": str(self.scratch / "config"),
            "FINETOP_BENCH_CACHE": str(self.scratch / "bench"),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
        made.setdefault("CUDA_VISIBLE_DEVICES", "0")
        made.pop("FINETOP_WORKSPACE", None)
        if not self.cuda:
            made["CUDA_VISIBLE_DEVICES"] = ""
        return made | changes

    def shape(self, model: str) -> str:
        """Name of the shape in `fixture.SIZES`; in a rehearsal all are the tiny one."""
        return "tiny" if self.tiny else model

    def chats(self, count: int) -> int:
        """So many, or what a rehearsal has."""
        return min(count, TINY_CHATS) if self.tiny else count

    def fixture_of(self, model: str) -> Fixture:
        count = self.chats(CHATS)
        tokens = round(count * MEAN_TOKENS)
        return Fixture(self.shape(model), count, tokens, round(tokens * 0.2))

    def fixture(self, model: str) -> Path:
        """The folder of a random model and of chats (see bench/fixture.py), made on the device itself and once for all
        measurements."""
        fixture = self.fixture_of(model)
        words = ["--size", fixture.size, "--chats", fixture.chats, "--tokens", fixture.tokens, "--supervised", 0.2]
        script = ROOT / "bench" / "fixture.py"
        if not (fixture.folder() / "fixture.json").exists():
            done = subprocess.run([sys.executable, str(script), *map(str, words)], env=self.environment(), check=False)
            if done.returncode:
                raise RuntimeError(f"the random model of {model} could not be made")
        return fixture.folder()

    def first_chats(self, model: str, count: int, times: int = 1) -> Path:
        """A file with the first chats of the fixture only, so many times one after the other."""
        source = self.fixture(model) / "messages.jsonl"
        few = source.with_name(f"first-{count}-{times}.jsonl")
        few.write_text("".join(times * source.read_text("utf-8").splitlines(keepends=True)[:count]), "utf-8")
        return few

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """An empty one, gone afterwards: checkpoints of large models would fill the disk."""
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self.passing) as folder:
            yield Path(folder)

    def needs_card(self, why: str) -> None:
        if not self.cuda:
            raise NotHere(f"not on a CPU: {why}")
