"""qlora: does training on a base in four bits work and save what it promises?

Proves: bitsandbytes' NF4 kernels for this card give the losses that its CPU ones give for the same run; the 8-bit and
the paged optimizer make the steps of the plain one; a base of 7B is held in four bits and trained.
ok: NF4 losses as near to the CPU's as bfloat16's must be (see train); 8-bit losses within 5 % of AdamW's; at 7B, with
activations recomputed, the whole run takes less than 0.7 of what the base alone would in bfloat16, and the loss falls.
Fell short: otherwise. Figures: peak memory, tokens per second.
"""

from gpu.findings import Findings, Measurement, NotHere
from gpu.kit import Kit
from gpu.runs import Trained, settings, train

SMALL = ("0.5b", 2, 4)
EIGHT_BIT_TOLERANCE = 5e-2
SHARE_OF_BFLOAT16, BIG_BYTES = 0.7, 2 * 7.6e9
BIG = ("7b", 16, 8)
"""Model, chats a step, steps."""


def measurements() -> list[Measurement]:
    return [
        Measurement("nf4", 65, against_cpu),
        Measurement("8-bit optimizers", 75, eight_bit),
        Measurement("7b", 120, big),
    ]


def _values(kit: Kit, model: str, batch: int, steps: int, **changes: object) -> dict:
    """The same chats at each step, so that the loss must fall."""
    values = {
        "method.kind": "qlora",
        "lora.r": 16,
        "optim.learning_rate": 1e-2 if kit.tiny else 5e-4,
        "train.shuffle": False,
    }
    values |= {"train.batch_size": batch, "data.files": [str(kit.first_chats(model, batch, steps))]}
    return values | {name.replace("__", "."): value for name, value in changes.items()}


def _needs_bitsandbytes() -> None:
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise NotHere("bitsandbytes is not installed")


def against_cpu(kit: Kit) -> Findings:
    """In float32 on the CPU from the same four bits."""
    from gpu.stages.train import TOLERANCE, same_losses

    _needs_bitsandbytes()
    findings = Findings()
    fixture = kit.fixture("0.5b")
    with kit.folder("qlora") as root:
        truth = train(kit, root, settings(fixture, _values(kit, *SMALL, model__dtype="float32")), on_cpu=True)
        dtype = "auto" if kit.cuda else "float32"
        ours = train(kit, root, settings(fixture, _values(kit, *SMALL, model__dtype=dtype)))
    same_losses(findings, ours.losses, truth.losses, *TOLERANCE["bfloat16"])
    where = ours.model["device"]
    findings.check(f"it trains on the {'card' if kit.cuda else 'CPU'}", (where != "cpu") == kit.cuda, where)
    return findings


def eight_bit(kit: Kit) -> Findings:
    _needs_bitsandbytes()
    findings = Findings()
    fixture = kit.fixture("0.5b")
    names = ["adamw8bit", *(["paged_adamw8bit"] if kit.cuda else [])]
    with kit.folder("qlora") as root:
        plain = train(kit, root, settings(fixture, _values(kit, *SMALL, method__kind="lora")))
        for name in names:
            ours = train(kit, root, settings(fixture, _values(kit, *SMALL, method__kind="lora", optim__name=name)))
            findings.check(f"{name} makes as many steps", len(ours.losses) == len(plain.losses), len(ours.losses))
            findings.close(f"{name}: the last loss", ours.losses[-1], plain.losses[-1], EIGHT_BIT_TOLERANCE)
            findings.figure(f"{name} against adamw", f"{ours.losses[-1]:.4f}, {plain.losses[-1]:.4f}")
    if not kit.cuda:
        findings.note("paged_adamw8bit is not on a CPU")
    return findings


def big(kit: Kit) -> Findings:
    _needs_bitsandbytes()
    findings = Findings()
    fixture = kit.fixture("7b")
    values = _values(kit, *BIG) | {"train.activation_checkpointing": True, "train.micro_tokens": 2048}
    with kit.folder("qlora") as root:
        ours = train(kit, root, settings(fixture, values))
    losses = ours.losses
    findings.check("the loss falls", len(losses) == BIG[-1] and losses[-1] < losses[0], losses)
    findings.figure("loss", f"{losses[0]:.3f} to {losses[-1]:.3f}")
    held_in_four_bits(kit, findings, ours)
    findings.figure("tokens/s", ours.tokens_per_second(), "")
    if peak := ours.memory.get("peak_bytes"):
        findings.figure("peak memory", peak, "GB")
    return findings


def held_in_four_bits(kit: Kit, findings: Findings, ours: Trained) -> None:
    """By types, and on a card by its peak, which the base in bfloat16 alone would exceed."""
    findings.check("the base is held in bytes", "uint8" in ours.model["weights"], ours.model["weights"])
    if kit.cuda and not kit.tiny:
        share = ours.memory["peak_bytes"] / BIG_BYTES
        findings.at_most("peak memory beside the base in bfloat16", share, SHARE_OF_BFLOAT16)
