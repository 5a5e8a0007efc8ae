"""CUDA_VISIBLE_DEVICES means the same cards to us as to CUDA."""

import pytest

from engine.monitor.cuda_visible_devices import environment, visible_gpus
from engine.monitor.samples import GpuSample


def gpu(index: int, uuid: str, bus: str | None = None, name: str = "A100", **more) -> GpuSample:
    return GpuSample(index, uuid, name=name, pci_bus=bus or f"00000000:{index:02X}:00.0", **more)


FOUR = [gpu(0, "GPU-aa00"), gpu(1, "GPU-aa11"), gpu(2, "GPU-bb22"), gpu(3, "GPU-cc33")]
CUT = [
    gpu(0, "GPU-aa00"),
    gpu(1, "GPU-bb11", mig_enabled=True),
    GpuSample(1, "MIG-0123", parent="GPU-bb11", gpu_instance=1, compute_instance=0),
    GpuSample(1, "MIG-0456", parent="GPU-bb11", gpu_instance=2, compute_instance=0),
]


def seen(wanted: str | None, gpus=FOUR, **environ) -> list[str]:
    if wanted is not None:
        environ["CUDA_VISIBLE_DEVICES"] = wanted
    return [one.uuid for one in visible_gpus(gpus, environ).gpus]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, ["GPU-aa00", "GPU-aa11", "GPU-bb22", "GPU-cc33"]),
        ("", []),
        ("2", ["GPU-bb22"]),
        ("2,0", ["GPU-bb22", "GPU-aa00"]),
        (" 1 , 3", ["GPU-aa11", "GPU-cc33"]),
        ("0,2,-1,1", ["GPU-aa00", "GPU-bb22"]),
        ("0,9,1", ["GPU-aa00"]),
        ("1gpu,2x", ["GPU-aa11", "GPU-bb22"]),
        ("1,1", []),
        ("none", []),
        ("GPU-bb22", ["GPU-bb22"]),
        ("GPU-b", ["GPU-bb22"]),
        ("GPU-cc33,GPU-aa1", ["GPU-cc33", "GPU-aa11"]),
        ("GPU-aa", []),
        ("GPU-bb22,GPU-b", []),
        ("GPU-bb22,1", ["GPU-bb22"]),
        ("GPU-", []),
    ],
)
def test_a_list_names_the_cards_cuda_would_take(wanted, found):
    assert seen(wanted) == found


def test_a_card_cut_into_slices_stands_for_its_first_slice():
    assert seen(None, CUT) == ["GPU-aa00", "MIG-0123"]
    assert seen("1", CUT) == ["MIG-0123"]
    assert seen("GPU-bb11", CUT) == ["MIG-0123"]


@pytest.mark.parametrize("name", ["MIG-0456", "MIG-045", "MIG-GPU-bb11/2/0"])
def test_a_slice_is_found_by_its_uuid_old_and_new(name):
    assert seen(name, CUT) == ["MIG-0456"]


def test_an_ambiguous_slice_is_not_guessed():
    assert seen("MIG-0", CUT) == []


def test_indices_follow_the_bus_even_when_nvml_lists_otherwise():
    swapped = [gpu(0, "GPU-late", bus="00000000:41:00.0"), gpu(1, "GPU-early", bus="00000000:01:00.0")]
    assert seen("0", swapped, CUDA_DEVICE_ORDER="PCI_BUS_ID") == ["GPU-early"]


def test_different_cards_without_bus_order_are_a_doubt_and_uuids_are_not():
    mixed = [gpu(0, "GPU-aa"), gpu(1, "GPU-bb", name="RTX 4090")]
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in visible_gpus(mixed, {"CUDA_VISIBLE_DEVICES": "0"}).doubt
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in visible_gpus(mixed, {}).doubt
    assert not visible_gpus(mixed, {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).doubt
    assert not visible_gpus(mixed, {"CUDA_VISIBLE_DEVICES": "GPU-aa"}).doubt
    assert not visible_gpus(FOUR, {"CUDA_VISIBLE_DEVICES": "0"}).doubt


def test_a_wrong_entry_is_named_with_what_cuda_ignores():
    doubt = visible_gpus(FOUR, {"CUDA_VISIBLE_DEVICES": "0,9,1"}).doubt
    assert "'9'" in doubt and "ignores 9, 1" in doubt


def test_what_we_set_for_a_run_is_read_back_as_the_same_cards():
    for gpus in ([FOUR[2], FOUR[0]], [CUT[3]], []):
        assert list(visible_gpus([*FOUR, *CUT[1:]], environment(gpus)).gpus) == gpus
