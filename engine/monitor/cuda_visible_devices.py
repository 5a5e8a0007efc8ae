"""Which cards a CUDA program would see: CUDA_VISIBLE_DEVICES read as the driver and torch read it.

Entries are indices or UUIDs (`GPU-…`, `MIG-…`, or the old `MIG-GPU-…/gi/ci`), UUIDs may be cut short as long as one
card fits. The first entry decides which kind the list is; the first invalid entry ends it, -1 included; a card named
twice makes the whole list empty.

An index counts CUDA's order, not NVML's. With CUDA_DEVICE_ORDER=PCI_BUS_ID they are the same. The default is
FASTEST_FIRST: CUDA puts what it takes for the fastest card first, and nobody outside CUDA can tell which. Where all
cards are of one model that makes no difference; otherwise `doubt` says so. Give UUIDs, or set PCI_BUS_ID:
`environment()` does both for the runs we start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.base.messages import msg
from engine.monitor.samples import GpuSample


@dataclass(frozen=True, slots=True)
class VisibleGpus:
    """The cards and slices in the order CUDA counts them."""

    gpus: tuple[GpuSample, ...]
    doubt: str = ""
    """Why the order, or the list itself, may not be what the user meant; empty when it is certain."""


def visible_gpus(gpus: Sequence[GpuSample], environ: Mapping[str, str]) -> VisibleGpus:
    cards = sorted((gpu for gpu in gpus if gpu.parent is None), key=lambda gpu: (gpu.pci_bus or "", gpu.index))
    ordinals = [_first_slice(card, gpus) for card in cards]
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return VisibleGpus(tuple(ordinals), _order_doubt(cards, environ))
    entries = [entry.strip() for entry in listed.split(",")]
    if listed.startswith(("GPU-", "MIG-")):
        prefix, doubt = listed[:4], ""
        matches = [_by_uuid(entry, prefix, gpus) for entry in entries]
    else:
        doubt = _order_doubt(cards, environ)
        matches = [_by_index(entry, ordinals) for entry in entries]
    return _list(entries, matches, doubt)


def environment(gpus: Sequence[GpuSample]) -> dict[str, str]:
    """What to set so that a process sees exactly these, whatever order CUDA prefers."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _list(entries: list[str], matches: list[GpuSample | None], doubt: str) -> VisibleGpus:
    seen: list[GpuSample] = []
    for entry, gpu in zip(entries, matches, strict=True):
        if gpu is None:
            ignored = entries[len(seen) :]
            if entry not in ("", "-1"):
                doubt = msg(
                    "CUDA_VISIBLE_DEVICES: no GPU fits '{entry}'; CUDA ignores {ignored}",
                    entry=entry,
                    ignored=", ".join(ignored),
                )
            break
        if gpu in seen:
            return VisibleGpus(
                (), msg("CUDA_VISIBLE_DEVICES names {entry} twice; CUDA then shows no GPU at all", entry=entry)
            )
        seen.append(gpu)
    return VisibleGpus(tuple(seen), doubt)


def _by_index(entry: str, ordinals: list[GpuSample]) -> GpuSample | None:
    # CUDA reads like strtoul: '1gpu' is 1
    digits = entry[: len(entry) - len(entry.lstrip("0123456789"))]
    return ordinals[int(digits)] if digits and int(digits) < len(ordinals) else None


def _by_uuid(entry: str, prefix: str, gpus: Sequence[GpuSample]) -> GpuSample | None:
    if not entry.startswith(prefix) or entry == prefix:
        return None
    if prefix == "GPU-":
        fitting = [gpu for gpu in gpus if gpu.parent is None and gpu.uuid.startswith(entry)]
        return _first_slice(fitting[0], gpus) if len(fitting) == 1 else None
    slices = [gpu for gpu in gpus if gpu.parent is not None]
    fitting = [gpu for gpu in slices if gpu.uuid.startswith(entry)]
    if not fitting:
        fitting = [gpu for gpu in slices if entry == f"MIG-{gpu.parent}/{gpu.gpu_instance}/{gpu.compute_instance}"]
    return fitting[0] if len(fitting) == 1 else None


def _first_slice(card: GpuSample, gpus: Sequence[GpuSample]) -> GpuSample:
    """A card cut into slices cannot be used whole; CUDA takes its first slice."""
    return next((gpu for gpu in gpus if gpu.parent == card.uuid), card) if card.mig_enabled else card


def _order_doubt(cards: Sequence[GpuSample], environ: Mapping[str, str]) -> str:
    if environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len({card.name for card in cards}) <= 1:
        return ""
    return "The cards differ, so CUDA may count them in another order: set CUDA_DEVICE_ORDER=PCI_BUS_ID or give UUIDs"
