"""One view of what a run needs of memory: what the command prints and what the form of a new run shows."""

from engine.base.units import GIB
from engine.plan.forecast import memory
from engine.plan.gpu_fit import GpuSpec
from engine.plan.hardware import Hardware, hardware_of
from engine.present.memory_view import Verdict, memory_lines, memory_view, verdict_lines
from engine.settings.schema import RunConfig
from tui.render import memory_lines as screen

_A100 = GpuSpec("NVIDIA A100", 80 * GIB, 79 * GIB)


def view(machine, **settings):
    config = RunConfig().replace({path.replace("__", "."): value for path, value in settings.items()})
    return memory_view(machine, memory(config, machine, [], {"longest": 500, "step_tokens": 3000, "supervised": 0.5}))


def gpus(*cards):
    return Hardware(cards, "", None, None, 400.0, True)


def screen_text(machine_view):
    return ["".join(text for text, _ in line) for line in screen.memory_lines(machine_view, 300)]


def test_cards_that_are_alike_are_one_line_and_the_verdict_names_one_of_them():
    machine_view = view(gpus(*[_A100] * 7, GpuSpec("NVIDIA T4", 16 * GIB, 0)))
    assert [(card.name, card.verdict) for card in machine_view.cards] == [
        ("7 × NVIDIA A100", Verdict.FITS),
        ("NVIDIA T4", Verdict.DOES_NOT_FIT),
    ]
    (line,) = verdict_lines(machine_view)
    assert line.startswith("  ✓ fits on NVIDIA A100: ") and line.endswith(", 79.0 GiB free")


def test_the_terminal_and_the_screen_say_the_same():
    machine_view = view(
        gpus(GpuSpec("NVIDIA T4", 16 * GIB)), model__name="Qwen/Qwen2.5-7B-Instruct", method__kind="full"
    )
    printed, shown = "\n".join(memory_lines(machine_view, 300)), "\n".join(screen_text(machine_view))
    assert machine_view.savings and "✗  NVIDIA T4" in printed and "✖ does not fit  NVIDIA T4, 16.0 GiB free" in shown
    for text in (
        machine_view.expected,
        *(part for saving in machine_view.savings for part in (saving.settings, saving.why)),
    ):
        assert text in printed and text in shown


def test_a_machine_without_gpus_has_its_own_memory_and_only_the_command_shows_common_cards_beside_it():
    machine_view = view(Hardware((), "no NVIDIA driver.", 16 * GIB, 8 * GIB, None, False))
    assert machine_view.best is machine_view.cpu and machine_view.cpu.verdict is Verdict.FITS
    assert verdict_lines(machine_view)[0].startswith("  ✓ fits in this machine's memory: ")
    assert len(machine_view.cards) == 3 and "a card of 48 GB" in "\n".join(memory_lines(machine_view, 300))
    shown = "\n".join(screen_text(machine_view))
    assert "✔ fits  this machine's memory, 8.0 GiB free" in shown
    assert "card" not in shown and "driver" not in shown


def test_the_memory_of_a_container_is_what_a_run_on_the_cpu_has_to_fit():
    """And its passes are made smaller before it is said not to fit."""
    large = view(Hardware((), "no NVIDIA driver.", 16 * GIB, 8 * GIB, None, False))
    small = view(Hardware((), "no NVIDIA driver.", 4 * GIB // 5, GIB // 2, None, False, (), "this container"))
    assert large.cpu.passes != small.cpu.passes and "3,000" in large.cpu.passes
    assert small.cpu.name == "the 819.2 MiB of this container"
    none = view(Hardware((), "no NVIDIA driver.", GIB // 2, GIB // 2, None, False, (), "this container"))
    assert verdict_lines(none)[0].startswith("  ✗ does not fit in the 512.0 MiB of this container: ")
    assert none.cpu.passes == "500 tokens"


def test_what_was_not_read_yet_is_not_judged():
    machine_view = view(hardware_of(None))
    assert machine_view.best is None and machine_view.cpu is None
    assert verdict_lines(machine_view)[0].startswith("  ? ")
