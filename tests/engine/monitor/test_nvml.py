"""What is shown of a card is what the driver said, read through the real pynvml from a stand-in driver."""

from tests.engine.fake_nvml.library import GIB, card, machine, uuid

pytest_plugins = ["tests.engine.fake_nvml.fixtures"]

READ = """
from engine.monitor.nvml import Nvml
nvml = Nvml()
emit([nvml.read(device) for device in nvml.devices()])
"""


def test_every_figure_of_a_card_arrives_in_the_unit_its_name_says(nvml):
    nvml.set(machine(card(0)))
    (gpu,) = nvml.python(READ)
    assert gpu["name"] == "NVIDIA A100-SXM4-80GB" and gpu["uuid"] == uuid(0) and gpu["index"] == 0
    assert gpu["pci_bus"] == "00000000:10:00.0"
    assert (gpu["utilisation"], gpu["memory_utilisation"]) == (98, 71)
    assert gpu["memory_total_bytes"] == 80 * GIB and gpu["memory_used_bytes"] == 62 * GIB
    assert gpu["temperature_c"] == 71
    assert (gpu["power_watts"], gpu["power_limit_watts"]) == (402.5, 400.0)
    assert (gpu["sm_clock_mhz"], gpu["sm_clock_max_mhz"], gpu["memory_clock_mhz"]) == (1305, 1410, 1593)
    assert (gpu["pcie_gen"], gpu["pcie_width"]) == (4, 16)
    assert (gpu["pcie_tx_bytes_per_s"], gpu["pcie_rx_bytes_per_s"]) == (1000 * 1024, 2000 * 1024)
    assert (gpu["ecc_corrected"], gpu["ecc_uncorrected"]) == (3, 0)
    assert gpu["energy_joules"] == 7200.0
    assert gpu["processes"] == [] and gpu["problem"] is None


def test_a_figure_the_card_does_not_give_is_none_and_never_zero(nvml):
    bare = {"uuid": uuid(0), "name": "Old card"}
    nvml.set(machine({f"gpu0.{key}": value for key, value in bare.items()}))
    (gpu,) = nvml.python(READ)
    told = {key for key, value in gpu.items() if value is not None}
    assert told == {"index", "uuid", "name", "taken_at"}


def test_a_fan_that_stands_still_is_zero_and_a_missing_fan_is_none(nvml):
    nvml.set(machine(card(0, fan=0), card(1)))
    still, missing = nvml.python(READ)
    assert still["fan_percent"] == 0 and missing["fan_percent"] is None


def test_memory_used_leaves_out_what_the_driver_keeps_as_nvidia_smi_does(nvml):
    nvml.set(machine(card(0, memory=f"{80 * GIB},{GIB},{2 * GIB}")))
    (gpu,) = nvml.python(READ)
    assert gpu["memory_used_bytes"] == 2 * GIB and gpu["memory_reserved_bytes"] == GIB


def test_an_old_driver_without_memory_v2_and_process_v3_still_shows_both(old_nvml):
    old_nvml.set(machine(card(0, memory=f"{80 * GIB},{GIB},{2 * GIB}", compute=f"4000001:{GIB}"), driver="470.42.01"))
    (gpu,) = old_nvml.python(READ)
    assert gpu["memory_used_bytes"] == 3 * GIB and gpu["memory_reserved_bytes"] is None
    assert [(p["pid"], p["memory_bytes"]) for p in gpu["processes"]] == [(4000001, GIB)]


def test_pids_are_right_on_driver_535_whose_process_records_are_longer(nvml_535):
    listed = ",".join(f"{4000001 + n}:{(n + 1) * GIB}" for n in range(4))
    nvml_535.set(machine(card(0, compute=listed), driver="535.54.03"))
    (gpu,) = nvml_535.python(READ)
    assert [p["pid"] for p in gpu["processes"]] == [4000001, 4000002, 4000003, 4000004]
    assert [p["memory_bytes"] for p in gpu["processes"]] == [GIB, 2 * GIB, 3 * GIB, 4 * GIB]


def test_memory_of_a_process_the_driver_does_not_account_is_none(nvml):
    nvml.set(machine(card(0, compute=f"4000001:{2**64 - 1}")))
    (gpu,) = nvml.python(READ)
    assert gpu["processes"][0]["memory_bytes"] is None


def test_a_process_listed_as_compute_and_graphics_is_shown_once(nvml):
    nvml.set(machine(card(0, compute=f"4000001:{GIB}", graphics=f"4000001:{GIB},4000002:{GIB}")))
    (gpu,) = nvml.python(READ)
    assert [(p["pid"], p["kind"]) for p in gpu["processes"]] == [(4000001, "compute"), (4000002, "graphics")]


def test_throttling_is_told_in_words_and_idle_is_not_throttling(nvml):
    nvml.set(machine(card(0, held_back=0x4 | 0x20), card(1, held_back=0x1), card(2, held_back=None)))
    hot, idle, silent = nvml.python(READ)
    assert hot["held_back"] == ["power cap", "thermal"]
    assert idle["held_back"] == [] and silent["held_back"] is None


def test_mig_slices_follow_their_card_with_their_own_memory_and_processes(nvml):
    slices = {
        "mig0.uuid": "MIG-aaaa",
        "mig0.name": "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
        "mig0.memory": f"{40 * GIB},0,{10 * GIB}",
        "mig0.gi": 1,
        "mig0.ci": 0,
        "mig0.compute": f"4000001:{3 * GIB}:1:0",
        "mig4.uuid": "MIG-bbbb",
        "mig4.memory": f"{10 * GIB},0,0",
        "mig4.compute": "",
    }
    nvml.set(machine(card(0, mig=1, utilisation="!3", compute=f"4000001:{3 * GIB}:1:0", **slices), card(1)))
    whole, first, second, other = nvml.python(READ)
    assert whole["mig_enabled"] is True and whole["utilisation"] is None
    assert whole["processes"] is None, "else a slice's process would be counted twice"
    assert (first["uuid"], first["parent"], first["gpu_instance"]) == ("MIG-aaaa", uuid(0), 1)
    assert first["memory_total_bytes"] == 40 * GIB and first["processes"][0]["gpu"] == "MIG-aaaa"
    assert second["uuid"] == "MIG-bbbb" and second["power_watts"] is None
    assert other["uuid"] == uuid(1) and other["parent"] is None


def test_a_card_that_falls_off_the_bus_says_so_and_the_others_go_on(nvml):
    nvml.set(machine(card(0), card(1)))
    before, after = nvml.python(
        """
        from tests.engine.fake_nvml.library import card, machine, write
        from engine.monitor.nvml import Nvml
        from pathlib import Path
        nvml = Nvml()
        before = [nvml.read(device) for device in nvml.devices()]
        write(Path(sys.argv[1]), machine(card(0), card(1, all="!15")))
        emit([before, [nvml.read(device) for device in nvml.devices()]])
        """,
        nvml.state,
    )
    assert before[1]["power_watts"] == 402.5
    assert after[0]["power_watts"] == 402.5 and after[0]["problem"] is None
    assert "fell off the bus" in after[1]["problem"]
    assert after[1]["name"] == before[1]["name"] and after[1]["power_watts"] is None


def test_a_card_that_is_lost_before_we_start_is_listed_and_the_others_are_read(nvml):
    nvml.set(machine(card(0, all="!15"), card(1)))
    lost, well = nvml.python(READ)
    assert lost["index"] == 0 and "fell off the bus" in lost["problem"]
    assert well["index"] == 1 and well["power_watts"] == 402.5


def test_one_failing_question_costs_one_figure_and_is_named(nvml):
    nvml.set(machine(card(0, power="!999")))
    (gpu,) = nvml.python(READ)
    assert gpu["power_watts"] is None and gpu["temperature_c"] == 71
    assert "PowerUsage" in gpu["problem"] and "Unknown Error" in gpu["problem"]


def test_a_slice_made_while_we_watch_appears_at_the_next_rescan(nvml):
    nvml.set(machine(card(0)))
    counts = nvml.python(
        """
        from tests.engine.fake_nvml.library import card, machine, write
        from engine.monitor import nvml as module
        from pathlib import Path
        module.RESCAN_SECONDS = 0.0
        nvml = module.Nvml()
        before = len(nvml.devices())
        write(Path(sys.argv[1]), machine(card(0, mig=1, **{"mig0.uuid": "MIG-new"})))
        emit([before, len(nvml.devices())])
        """,
        nvml.state,
    )
    assert counts == [1, 2]


WHY = """
from engine.monitor.nvml import DriverUnavailable, Nvml
try:
    emit(len(Nvml().devices()))
except DriverUnavailable as reason:
    emit(str(reason))
"""


def test_without_a_driver_one_line_says_so(no_driver):
    assert no_driver.python(WHY) == "No NVIDIA driver found (libnvidia-ml.so.1). CPU runs still work."


def test_a_driver_that_is_not_loaded_or_does_not_match_says_what_to_do(nvml):
    nvml.set(machine(init="!9"))
    assert "not loaded" in nvml.python(WHY)
    nvml.set(machine(init="!18"))
    assert "reboot" in nvml.python(WHY)


def test_a_driver_loaded_later_is_found_without_a_restart(nvml):
    nvml.set(machine(init="!9"))
    found = nvml.python(
        """
        from tests.engine.fake_nvml.library import card, machine, write
        from engine.monitor import nvml as module
        from pathlib import Path
        module.RESCAN_SECONDS = 0.0
        nvml = module.Nvml()
        try:
            nvml.devices()
        except module.DriverUnavailable:
            write(Path(sys.argv[1]), machine(card(0)))
            emit(nvml.read(nvml.devices()[0]))
        """,
        nvml.state,
    )
    assert found["power_watts"] == 402.5


def test_importing_the_monitor_does_not_load_pynvml(nvml):
    assert nvml.python("import engine.monitor.monitor, engine.cli.commands.top; emit('pynvml' in sys.modules)") is False
