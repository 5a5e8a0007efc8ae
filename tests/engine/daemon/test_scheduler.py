"""The scheduler's promises, by example and over generated machines and queues."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.base.units import GIB
from engine.daemon.scheduler import decide
from engine.daemon.scheduler_state import (
    HOST,
    ActiveEngine,
    ActiveRun,
    Dependency,
    ForeignProcess,
    GiveWay,
    Gpu,
    Start,
    StartEngine,
    State,
    Wait,
    WaitEngine,
    WaitingEngine,
    WaitingRun,
    WaitKind,
)


def gib(number: float) -> int:
    return int(number * GIB)


def gpu(name: str, free: float = 80, total: float = 80, *foreign: ForeignProcess) -> Gpu:
    return Gpu(name, gib(total), gib(free), foreign)


def one(state: State):
    (decision,) = decide(state)
    return decision


# by example


def test_a_run_that_lacks_memory_says_how_much_and_who_has_it():
    kim = ForeignProcess(2217, "kim", gib(14.2))
    waiting = WaitingRun(43, estimate_bytes=gib(21.4))
    decision = one(State(waiting=(waiting,), gpus=(gpu("0", 9.8, 24, kim),)))
    assert decision == Wait(43, WaitKind.MEMORY, "needs ~21.4 GiB, GPU 0 has 9.8 free: used by pid 2217 of kim")


def test_one_run_a_gpu_unless_both_share_and_fit():
    on_it = ActiveRun(1, ("0",), promised_bytes=gib(20))
    asks = WaitingRun(2, estimate_bytes=gib(30), share=True)
    alone = one(State(waiting=(asks,), active=(on_it,), gpus=(gpu("0"),)))
    assert alone == Wait(2, WaitKind.BUSY, "GPU 0 is used by run 1")
    sharing = dataclasses.replace(on_it, share=True)
    assert one(State(waiting=(asks,), active=(sharing,), gpus=(gpu("0"),))) == Start(2, ("0",))
    large = dataclasses.replace(asks, estimate_bytes=gib(61))
    assert one(State(waiting=(large,), active=(sharing,), gpus=(gpu("0"),))).kind is WaitKind.MEMORY
    unknown = dataclasses.replace(asks, estimate_bytes=None)
    assert isinstance(one(State(waiting=(unknown,), active=(sharing,), gpus=(gpu("0"),))), Wait)


def test_memory_promised_and_not_yet_allocated_is_counted():
    fresh = ActiveRun(1, ("0",), promised_bytes=gib(60), share=True)
    asks = WaitingRun(2, estimate_bytes=gib(30), share=True)
    decision = one(State(waiting=(asks,), active=(fresh,), gpus=(gpu("0", free=80),)))
    assert decision == Wait(2, WaitKind.MEMORY, "needs ~30.0 GiB, GPU 0 has 20.0 free: used by run 1")


def test_two_runs_started_at_once_are_not_promised_the_same_bytes():
    waiting = tuple(WaitingRun(run, estimate_bytes=gib(50), share=True) for run in (1, 2))
    first, second = decide(State(waiting=waiting, gpus=(gpu("0"),)))
    assert first == Start(1, ("0",))
    assert isinstance(second, Wait) and second.kind is WaitKind.MEMORY


def test_a_gpu_without_others_is_taken_first():
    kim = ForeignProcess(7, "kim", gib(10))
    state = State(waiting=(WaitingRun(1, estimate_bytes=gib(20)),), gpus=(gpu("0", 70, 80, kim), gpu("1")))
    assert one(state) == Start(1, ("1",))
    assert one(dataclasses.replace(state, gpus=state.gpus[:1])) == Start(1, ("0",))


def test_a_run_of_unknown_size_does_not_go_where_others_are():
    kim = ForeignProcess(7, "kim", gib(10))
    decision = one(State(waiting=(WaitingRun(1),), gpus=(gpu("0", 70, 80, kim),)))
    assert decision.kind is WaitKind.MEMORY and "pid 7 of kim" in decision.reason


def test_runs_are_pinned_by_index_or_uuid():
    cards = (gpu("0"), dataclasses.replace(gpu("1"), other_names=("GPU-ab",)))
    for name in ("1", "GPU-ab"):
        assert one(State(waiting=(WaitingRun(1, pinned=(name,)),), gpus=cards)) == Start(1, ("1",))
    missing = one(State(waiting=(WaitingRun(1, pinned=("7",)),), gpus=cards))
    assert missing == Wait(1, WaitKind.NEVER, "pinned to GPU 7, which this machine does not have")


def test_a_run_for_several_gpus_gets_them_together_and_others_use_what_is_left():
    active = (ActiveRun(1, ("0",)), ActiveRun(2, ("2",)))
    cards = tuple(gpu(name) for name in "0123")
    waiting = (WaitingRun(3, gpus_wanted=3, estimate_bytes=gib(40)), WaitingRun(4), WaitingRun(5))
    decisions = decide(State(waiting=waiting, active=active, gpus=cards))
    assert decisions[0].reason.startswith("needs 3 GPUs together, 2 free")
    assert [decision.kind for decision in decisions[1:]] == [WaitKind.KEPT, WaitKind.KEPT]
    assert "kept for run 3, which needs 3 together" in decisions[1].reason
    # One more comes free: exactly the run in front starts, and the last card goes to nobody it is not free for.
    later = decide(State(waiting=waiting, active=active[:1], gpus=cards))
    assert later[0] == Start(3, ("1", "2", "3"))
    assert isinstance(later[1], Wait)


def test_a_run_blocked_by_somebody_else_does_not_keep_the_machine_idle():
    kim = ForeignProcess(7, "kim", gib(70))
    cards = (gpu("0"), gpu("1", 10, 80, kim))
    waiting = (WaitingRun(1, gpus_wanted=2, estimate_bytes=gib(40)), WaitingRun(2, estimate_bytes=gib(20)))
    blocked, behind = decide(State(waiting=waiting, gpus=cards))
    assert blocked.kind is WaitKind.MEMORY and "kim" in blocked.reason
    assert behind == Start(2, ("0",))


def test_what_this_machine_can_never_run_says_so():
    cards = (gpu("0"),)
    assert (
        one(State(waiting=(WaitingRun(1, gpus_wanted=2),), gpus=cards)).reason == "asks for 2 GPUs; this machine has 1"
    )
    large = one(State(waiting=(WaitingRun(1, estimate_bytes=gib(90)),), gpus=cards))
    assert large.kind is WaitKind.NEVER
    assert large.reason == "needs ~90.0 GiB, more than the 80.0 of the largest GPU"
    assert one(State(waiting=(WaitingRun(1, gpus_wanted=2),))).reason == "asks for 2 GPUs; this machine has none"


def test_a_machine_without_gpus_has_a_set_number_of_slots():
    waiting = tuple(WaitingRun(run) for run in (1, 2, 3, 4))
    decisions = decide(State(waiting=waiting, active=(ActiveRun(9),), cpu_slots=3))
    assert decisions[:2] == [Start(1), Start(2)]
    assert decisions[2].reason == "all 3 CPU slots are used by run 9"
    assert decisions[3].reason == "all 3 CPU slots are taken; run 3 is next"


def test_held_dependent_pausing_and_disk_full_are_told_apart():
    waiting = (
        WaitingRun(1, held=True),
        WaitingRun(2, after=(Dependency(1, "queued"),)),
        WaitingRun(3, after=(Dependency(8, "failed"), Dependency(9, "done"))),
        WaitingRun(4, after=(Dependency(7, None),)),
        WaitingRun(5, not_before=140.0),
        WaitingRun(6),
    )
    decisions = decide(State(waiting=waiting, gpus=(gpu("0"),), now=100.0, disk_full="the disk of /runs is full"))
    assert [(decision.kind.value, decision.reason) for decision in decisions] == [
        ("held", "held by you"),
        ("after", "after run 1 (queued)"),
        ("after", "after run 8, which failed"),
        ("after", "after run 7, which was deleted"),
        ("later", "tries again in 40s"),
        ("disk", "the disk of /runs is full"),
    ]


def test_priority_goes_before_the_order_in_the_queue():
    waiting = (WaitingRun(1), WaitingRun(2, priority=5), WaitingRun(3, priority=5))
    decisions = decide(State(waiting=waiting, gpus=(gpu("0"), gpu("1"))))
    assert [decision.run for decision in decisions] == [2, 3, 1]
    assert [decision.run for decision in decisions if isinstance(decision, Start)] == [2, 3]


# over generated machines and queues

names = st.sampled_from("0123")
sizes = st.one_of(st.none(), st.integers(1, 90).map(gib))


@st.composite
def machines(draw) -> State:
    count = draw(st.integers(0, 4))
    active, used = [], {str(index): 0 for index in range(count)}
    users = {name: [] for name in used}
    for run in range(draw(st.integers(0, 4))):
        share = draw(st.booleans())
        possible = [name for name in used if not users[name] or (share and all(users[name]))]
        if not possible:
            break
        chosen = draw(st.lists(st.sampled_from(possible), min_size=1, max_size=2, unique=True))
        estimate = draw(st.integers(1, 20))
        allocated = draw(st.integers(0, estimate))
        for name in chosen:
            used[name] += allocated
            users[name].append(share)
        active.append(ActiveRun(100 + run, tuple(chosen), gib(estimate - allocated), share))
    cards = []
    for name in used:
        other = draw(st.integers(0, 40)) if draw(st.booleans()) else 0
        foreign = (ForeignProcess(5000 + int(name), "kim", gib(other)),) if other else ()
        cards.append(gpu(name, max(80 - used[name] - other, 0), 80, *foreign))
    after = st.lists(st.builds(Dependency, st.integers(50, 60), st.sampled_from(["done", "queued", "failed", None])))
    run = st.builds(
        WaitingRun,
        id=st.just(0),
        priority=st.integers(-1, 2),
        held=st.integers(0, 5).map(lambda number: number == 0),
        after=st.one_of(st.just(()), after.map(tuple)),
        not_before=st.one_of(st.none(), st.floats(0, 200)),
        gpus_wanted=st.integers(0, 4),
        pinned=st.one_of(st.just(()), st.lists(names, unique=True, max_size=3).map(tuple)),
        estimate_bytes=sizes,
        share=st.booleans(),
    )
    waiting = [dataclasses.replace(item, id=index) for index, item in enumerate(draw(st.lists(run, max_size=8)), 1)]
    return State(
        tuple(waiting),
        tuple(active),
        tuple(cards),
        draw(st.integers(0, 3)),
        draw(st.sampled_from(["", "", "", "full"])),
        now=100.0,
    )


def starts(state: State) -> dict[int, tuple[str, ...]]:
    return {decision.run: decision.gpus for decision in decide(state) if isinstance(decision, Start)}


@settings(max_examples=120, deadline=None)
@given(machines())
def test_every_waiting_run_gets_one_decision_and_every_wait_a_reason(state):
    decisions = decide(state)
    in_turn = sorted(state.waiting, key=lambda run: -run.priority)
    assert [decision.run for decision in decisions] == [run.id for run in in_turn]
    assert all(decision.reason for decision in decisions if isinstance(decision, Wait))
    assert decisions == decide(state)


@settings(max_examples=120, deadline=None)
@given(machines())
def test_no_gpu_is_ever_promised_beyond_its_free_memory_nor_shared_against_a_run_s_will(state):
    runs = {run.id: run for run in state.waiting}
    started = starts(state)
    for card in state.gpus:
        here = [runs[run] for run, gpus in started.items() if card.id in gpus]
        there = [run for run in state.active if card.id in run.gpus]
        if here:
            promised = sum(run.estimate_bytes or 0 for run in here) + sum(run.promised_bytes for run in there)
            assert promised <= card.free_bytes
        if here and len(here) + len(there) > 1:
            assert all(run.share for run in (*here, *there))
            assert all(run.estimate_bytes is not None for run in here)
    on_cpu = sum(not gpus for gpus in started.values()) + sum(not run.gpus for run in state.active)
    assert on_cpu <= max(state.cpu_slots, sum(not run.gpus for run in state.active))


@settings(max_examples=120, deadline=None)
@given(machines())
def test_only_runs_that_may_start_do_and_with_what_they_asked_for(state):
    runs = {run.id: run for run in state.waiting}
    for run_id, gpus in starts(state).items():
        run = runs[run_id]
        assert not run.held and not state.disk_full
        assert all(dependency.state == "done" for dependency in run.after)
        assert run.not_before is None or run.not_before <= state.now
        assert len(set(gpus)) == len(gpus)
        if state.gpus:
            assert len(gpus) == run.gpus_wanted
        assert not gpus or not run.pinned or set(gpus) <= set(run.pinned)


@settings(max_examples=100, deadline=None)
@given(machines(), st.integers(1, 3), sizes)
def test_among_equals_nobody_is_overtaken(state, wanted, size):
    """Of runs that ask for the same, those that start are the first ones."""
    equal = tuple(WaitingRun(run, gpus_wanted=wanted, estimate_bytes=size, share=True) for run in range(1, 6))
    started = [isinstance(decision, Start) for decision in decide(dataclasses.replace(state, waiting=equal))]
    assert started == sorted(started, reverse=True)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=30),
)
def test_a_large_run_starts_though_small_ones_keep_arriving(cards, wanted, small):
    """Time goes by in ticks; a new small run arrives behind the large one at every tick, each lasting some ticks."""
    wanted = min(wanted, cards)
    large = WaitingRun(1, gpus_wanted=wanted, estimate_bytes=gib(40))
    active: dict[int, tuple[tuple[str, ...], int]] = {}
    waiting = [WaitingRun(2), WaitingRun(3)]
    for tick in range(40):
        active = {run: (gpus, left - 1) for run, (gpus, left) in active.items() if left > 1}
        gpus_wanted, lasts = small[tick % len(small)]
        if gpus_wanted <= cards:
            waiting.append(WaitingRun(10 + tick, gpus_wanted=gpus_wanted, estimate_bytes=gib(10)))
        queue = ([large] if tick >= 3 else []) + waiting
        state = State(
            tuple(queue),
            tuple(ActiveRun(run, gpus) for run, (gpus, _) in active.items()),
            tuple(gpu(str(index)) for index in range(cards)),
        )
        for run, gpus in starts(state).items():
            if run == large.id:
                assert tick <= 3 + max(lasts for _, lasts in small)
                return
            active[run] = (gpus, lasts)
            waiting = [item for item in waiting if item.id != run]
    raise AssertionError("the large run never started")


# engines


def test_an_engine_takes_memory_beside_any_run_and_says_who_has_it():
    trains = ActiveRun(12, ("0",), promised_bytes=gib(20))
    small = WaitingEngine("m-1", "qwen", gib(10))
    assert decide(State(active=(trains,), gpus=(gpu("0", 40),), wanted=(small,))) == [StartEngine("m-1", ("0",))]
    large = WaitingEngine("m-1", "qwen", gib(30))
    waits = decide(State(active=(trains,), gpus=(gpu("0", 40),), wanted=(large,)))
    assert waits == [WaitEngine("m-1", "waits for room: needs ~30.0 GiB, GPU 0 has 20.0 free: used by run 12")]
    never = decide(State(gpus=(gpu("0"),), wanted=(WaitingEngine("m-1", "qwen", gib(90)),)))
    assert never == [WaitEngine("m-1", "needs ~90.0 GiB, more than the 80.0 of the largest GPU")]
    unknown = dataclasses.replace(trains, promised_bytes=0, known=False)
    assert isinstance(decide(State(active=(unknown,), gpus=(gpu("0", 40),), wanted=(small,)))[0], WaitEngine)


def test_an_engine_gives_way_to_a_run_which_starts_before_it_comes_back():
    engine = ActiveEngine("m-1", "qwen", ("0",), gib(5), gib(30))
    run = WaitingRun(7, estimate_bytes=gib(60))
    state = State(waiting=(run,), gpus=(gpu("0", 55),), engines=(engine,))
    assert decide(state) == [
        GiveWay("m-1", 7),
        Wait(7, WaitKind.MEMORY, "needs ~60.0 GiB, GPU 0 has 50.0 free: used by the server's model qwen"),
    ]
    behind = WaitingEngine("m-1", "qwen", gib(30), behind=7)
    assert decide(dataclasses.replace(state, gpus=(gpu("0"),), engines=(), wanted=(behind,))) == [
        Start(7, ("0",)),
        WaitEngine("m-1", "waits for room: needs ~30.0 GiB, GPU 0 has 20.0 free: used by run 7"),
    ]
    fits = WaitingRun(7, estimate_bytes=gib(50))
    assert decide(dataclasses.replace(state, waiting=(fits,))) == [Start(7, ("0",))]
    unknown = decide(dataclasses.replace(state, waiting=(WaitingRun(7),)))
    assert unknown[0] == GiveWay("m-1", 7) and isinstance(unknown[1], Wait)


def test_engines_of_two_models_take_turns():
    engine = ActiveEngine("a", "qwen", ("0",), 0, gib(60))
    wanted = WaitingEngine("b", "llama", gib(40))
    assert decide(State(gpus=(gpu("0", 20),), engines=(engine,), wanted=(wanted,))) == [
        GiveWay("a", None),
        WaitEngine("b", "waits for room: needs ~40.0 GiB, GPU 0 has 20.0 free: used by the server's model qwen"),
    ]
    trains = ActiveRun(3, ("0",), gib(10))  # it would not fit even then: nobody leaves for nothing
    held = State(active=(trains,), gpus=(gpu("0", 20),), engines=(engine,), wanted=(WaitingEngine("b", "l", gib(75)),))
    assert [type(decision) for decision in decide(held)] == [WaitEngine]


def test_on_a_cpu_engines_share_the_hosts_memory_with_runs_and_runs_wait_for_engines_only():
    host = Gpu(HOST, gib(16), gib(8))
    trains = ActiveRun(1, promised_bytes=gib(3))
    wanted = WaitingEngine("m", "starter", gib(4))
    assert decide(State(active=(trains,), host=host, wanted=(wanted,))) == [StartEngine("m")]
    assert decide(State(active=(trains,), host=host, wanted=(WaitingEngine("m", "starter", gib(6)),))) == [
        WaitEngine("m", "waits for room: needs ~6.0 GiB, this machine has 5.0 free: used by run 1")
    ]
    engine = ActiveEngine("m", "starter", (), gib(1), gib(4))
    run = WaitingRun(2, estimate_bytes=gib(9))
    assert decide(State(waiting=(run,), host=host, engines=(engine,))) == [
        GiveWay("m", 2),
        Wait(2, WaitKind.MEMORY, "needs ~9.0 GiB, this machine has 7.0 free: used by the server's model starter"),
    ]
    assert decide(State(waiting=(run,), host=host)) == [Start(2)]


@given(
    st.lists(st.tuples(st.integers(1, 90), st.booleans()), max_size=4),
    st.lists(st.integers(1, 90), max_size=4),
    st.lists(st.integers(10, 80), min_size=1, max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_what_starts_never_has_more_than_is_free(runs, engines, free):
    state = State(
        waiting=tuple(WaitingRun(i, estimate_bytes=gib(size), share=share) for i, (size, share) in enumerate(runs)),
        wanted=tuple(WaitingEngine(f"e{i}", "m", gib(size)) for i, size in enumerate(engines)),
        gpus=tuple(gpu(str(i), amount) for i, amount in enumerate(free)),
    )
    taken = {one.id: 0 for one in state.gpus}
    decisions = decide(state)
    for decision in decisions:
        if isinstance(decision, Start):
            for name in decision.gpus:
                taken[name] += gib(runs[decision.run][0])
        elif isinstance(decision, StartEngine):
            for name in decision.gpus:
                taken[name] += gib(engines[int(decision.key[1:])])
    assert all(taken[one.id] <= one.free_bytes for one in state.gpus)
    about = [d.key for d in decisions if isinstance(d, StartEngine | WaitEngine)]
    assert sorted(about) == [f"e{i}" for i in range(len(engines))]
