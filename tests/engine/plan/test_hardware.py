"""The plan on a machine with GPUs, as the driver tells of them."""

import json
import subprocess
import sys
from pathlib import Path

from engine.plan.hardware import card_is_good_at_bfloat16
from tests.engine.fake_nvml.library import GIB, ROOT, card, machine

pytest_plugins = ["tests.engine.fake_nvml.fixtures"]
FINETOP = str(Path(sys.executable).with_name("finetop"))


def test_the_plan_takes_the_cards_of_this_machine_and_what_is_free_on_them(
    nvml, tiny_model, chats, tmp_path, fork_server
):
    nvml.set(machine(card(0), card(1)))
    done = subprocess.run(
        [FINETOP, "plan", "--model", tiny_model, "--data-file", chats, "--json"],
        env=nvml.environ() | {"FINETOP_WORKSPACE": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    cards = plan["memory"]["cards"]
    assert len(cards) == 2 and plan["memory"]["device"] == "cuda"
    assert all(one["fits"] and 0 < one["free_bytes"] <= one["total_bytes"] for one in cards)
    assert cards[0]["total_bytes"] > GIB and plan["memory"]["parts"]["context"] > 0
    assert plan["cost"]["kwh"] > 0 and "limit" in plan["cost"]["watts_from"]


def test_cards_before_ampere_are_known_by_name():
    assert not any(
        card_is_good_at_bfloat16(name) for name in ("Tesla T4", "Tesla V100-SXM2-16GB", "NVIDIA GeForce RTX 2080 Ti")
    )
    assert all(
        card_is_good_at_bfloat16(name)
        for name in ("NVIDIA A100-SXM4-80GB", "NVIDIA H200", "NVIDIA GeForce RTX 4090", "NVIDIA L4", "NVIDIA RTX A4000")
    )
