"""What the scheduler promises, one example at a time, and what a whole sweep looks like in virtual time."""

import heapq
from collections import Counter
from collections.abc import Iterator

import pytest

from orchestrator.run.scheduler import Scheduler
from orchestrator.run.work import Outcome, VictimWork
from tests.support.victims import attack_spec, some_victim
from workers.unit import Evaluation, Training, VictimSpec

FGSM = attack_spec()


def evaluation_units(victim: VictimSpec, count: int) -> Iterator[Evaluation]:
    for i in range(count):
        cells = ((f"{victim.victim_id}-cell", 0.1),)
        yield Evaluation(f"{victim.victim_id}/{i}", victim, FGSM, cells, start=i * 250, stop=i * 250 + 250)


def victim_work(name: str, count: int, *, training: bool = False) -> VictimWork:
    victim = some_victim(name)
    first = Training(f"{name}/train", victim) if training else None
    return VictimWork(name, first, evaluation_units(victim, count), count)


def scheduler(*work: VictimWork, workers: str = "w", **limits: int) -> Scheduler:
    """A scheduler that the workers named by the letters of `workers` have joined."""
    made = Scheduler(work, **limits)
    for worker in workers:
        made.join(worker)
    return made


def ask(made: Scheduler, worker: str) -> str | None:
    unit = made.next_unit(worker)
    return None if unit is None else unit.unit_id


def lose(made: Scheduler, worker: str, *, charged: bool) -> Outcome:
    """Lose a worker that has a unit."""
    outcome = made.lose(worker, charged=charged)
    assert outcome is not None
    return outcome


def counts(made: Scheduler) -> tuple[int, int, int, int]:
    return made.waiting, made.running, made.done, made.failed


# One worker


def test_training_comes_first_then_the_units_in_the_order_of_the_plan() -> None:
    made = scheduler(victim_work("a", 2, training=True))
    order = []
    while (unit := made.next_unit("w")) is not None:
        order.append(unit.unit_id)
        assert made.running == 1
        assert made.finish("w", ok=True) == Outcome(unit, "done", attempt=1)
        assert made.running == 0
    assert order == ["a/train", "a/0", "a/1"]
    assert made.finished
    assert (made.total, *counts(made)) == (3, 0, 0, 3, 0)


def test_one_victim_is_worked_off_before_the_next_is_touched() -> None:
    made = scheduler(victim_work("a", 2), victim_work("b", 3, training=True))
    order = []
    while (unit_id := ask(made, "w")) is not None:
        order.append(unit_id)
        made.finish("w", ok=True)
    assert order == ["b/train", "b/0", "b/1", "b/2", "a/0", "a/1"]


def test_a_plan_without_units_is_finished_at_once() -> None:
    assert Scheduler([]).finished
    made = scheduler(victim_work("a", 0))
    assert ask(made, "w") is None
    assert made.finished
    assert made.total == 0


def test_a_victim_may_have_a_training_and_nothing_else() -> None:
    made = scheduler(victim_work("a", 0, training=True))
    assert ask(made, "w") == "a/train"
    assert not made.finished
    made.finish("w", ok=True)
    assert made.finished


def test_units_are_generated_no_earlier_than_needed() -> None:
    generated = []

    def recorded(units: Iterator[Evaluation]) -> Iterator[Evaluation]:
        for unit in units:
            generated.append(unit.unit_id)
            yield unit

    plain = victim_work("a", 100_000, training=True)
    made = scheduler(VictimWork("a", plain.training, recorded(plain.units), plain.count))
    ask(made, "w")
    assert made.waiting == 100_000
    assert generated == []
    for _ in range(5):
        made.finish("w", ok=True)
        ask(made, "w")
    assert len(generated) <= 6  # the five handed out, and at most one peeked


# Failures


def test_a_failed_unit_is_tried_again_after_the_fresh_ones_and_then_given_up() -> None:
    made = scheduler(victim_work("a", 2), max_attempts=2)
    assert ask(made, "w") == "a/0"
    outcome = made.finish("w", ok=False)
    assert (outcome.state, outcome.attempt) == ("retry", 1)
    assert counts(made) == (2, 0, 0, 0)
    assert ask(made, "w") == "a/1"
    made.finish("w", ok=True)
    assert ask(made, "w") == "a/0"
    outcome = made.finish("w", ok=False)
    assert (outcome.state, outcome.attempt, outcome.skipped) == ("failed", 2, 0)
    assert made.finished
    assert counts(made) == (0, 0, 1, 1)


def test_retries_first_tells_soon_whether_failures_are_for_good() -> None:
    made = scheduler(victim_work("a", 5), workers="xy")
    assert (ask(made, "x"), ask(made, "y")) == ("a/0", "a/1")
    made.finish("x", ok=False)
    made.retries_first = True
    assert ask(made, "x") == "a/0", "before fresh ones, even on the worker that it failed on"
    assert made.finish("x", ok=False).state == "failed"
    assert ask(made, "x") == "a/2"


def test_max_attempts_of_one_means_no_second_try() -> None:
    made = scheduler(victim_work("a", 1), max_attempts=1)
    ask(made, "w")
    assert made.finish("w", ok=False).state == "failed"
    assert made.finished


def test_a_training_that_fails_for_good_takes_its_units_along_without_generating_them() -> None:
    def never() -> Iterator[Evaluation]:
        raise AssertionError("a unit of a failed victim was generated")
        yield

    training = victim_work("a", 0, training=True).training
    assert training is not None
    made = scheduler(VictimWork("a", training, never(), 1000), victim_work("b", 1), max_attempts=2)
    assert ask(made, "w") == "a/train"
    assert made.finish("w", ok=False).state == "retry"
    assert ask(made, "w") == "a/train", "the only worker gets what failed on it"
    assert made.finish("w", ok=False) == Outcome(training, "failed", attempt=2, skipped=1000)
    assert counts(made) == (1, 0, 0, 1001)
    assert ask(made, "w") == "b/0", "other victims go on"
    made.finish("w", ok=True)
    assert made.finished


def test_a_failed_unit_prefers_another_worker() -> None:
    made = scheduler(victim_work("a", 1), victim_work("b", 5), workers="xy")
    assert ask(made, "x") == "b/0"
    assert ask(made, "y") == "a/0"
    made.finish("y", ok=False)
    assert ask(made, "y") == "b/1", "y does anything else rather than what failed on it"
    made.finish("x", ok=True)
    made.finish("y", ok=True)
    for unit_id in ("b/2", "b/3", "b/4", "a/0"):
        assert ask(made, "x") == unit_id
        made.finish("x", ok=True)
    assert made.finished


def test_a_failed_unit_goes_back_to_its_worker_rather_than_wait() -> None:
    made = scheduler(victim_work("a", 2), workers="xy")
    assert (ask(made, "x"), ask(made, "y")) == ("a/0", "a/1")
    made.finish("x", ok=False)
    assert ask(made, "x") == "a/0", "y is busy, and may be for hours"


def test_a_failed_training_moves_to_another_worker_and_the_first_does_not_hold_its_victim() -> None:
    work = [
        victim_work("a", 3, training=True),
        *(victim_work(name, n) for name, n in zip("bcd", (1, 2, 1), strict=True)),
    ]
    made = scheduler(*work, workers="xy")
    assert (ask(made, "x"), ask(made, "y")) == ("a/train", "c/0")
    made.finish("x", ok=False)
    assert ask(made, "x") == "b/0"
    made.finish("y", ok=True)
    assert ask(made, "y") == "c/1"
    made.finish("y", ok=True)
    assert ask(made, "y") == "a/train"
    made.finish("y", ok=True)
    made.finish("x", ok=True)
    assert ask(made, "x") == "d/0", "nobody is on d; a is no nearer to x than to anybody"


# Lost workers


def test_losing_a_unit_with_its_node_is_not_an_attempt() -> None:
    made = scheduler(victim_work("a", 1), max_attempts=1, max_losses=2)
    for _ in range(2):
        ask(made, "w")
        assert lose(made, "w", charged=False).state == "retry"
        assert made.waiting == 1
        made.join("w")
    ask(made, "w")
    outcome = lose(made, "w", charged=False)
    assert (outcome.state, outcome.attempt) == ("failed", 1), "the third loss is one too many"
    assert made.finished


def test_a_process_that_dies_on_a_live_node_is_an_attempt() -> None:
    made = scheduler(victim_work("a", 1), workers="xyz", max_attempts=2)
    ask(made, "x")
    outcome = lose(made, "x", charged=True)
    assert (outcome.state, outcome.attempt) == ("retry", 1)
    ask(made, "y")
    outcome = lose(made, "y", charged=True)
    assert (outcome.state, outcome.attempt) == ("failed", 2)
    assert ask(made, "z") is None


def test_an_attempt_that_was_lost_without_charge_keeps_its_number() -> None:
    made = scheduler(victim_work("a", 1), workers="xyz", max_attempts=2)
    ask(made, "x")
    assert made.finish("x", ok=False).attempt == 1
    ask(made, "y")
    assert lose(made, "y", charged=False).attempt == 2
    ask(made, "z")
    outcome = made.finish("z", ok=True)
    assert (outcome.state, outcome.attempt) == ("done", 2)


def test_losing_an_idle_worker_costs_nothing_and_it_may_join_again() -> None:
    made = scheduler(victim_work("a", 1))
    assert made.lose("w", charged=False) is None
    assert not made.finished, "work is left, though nobody is there to do it"
    made.join("w")
    assert ask(made, "w") == "a/0"


def test_a_lost_training_is_done_elsewhere_and_unblocks_its_units() -> None:
    made = scheduler(victim_work("a", 1, training=True), workers="xy")
    assert ask(made, "x") == "a/train"
    assert ask(made, "y") is None
    made.lose("x", charged=False)
    assert ask(made, "y") == "a/train"
    made.finish("y", ok=True)
    assert ask(made, "y") == "a/0"


# Who does what


def test_units_wait_for_their_own_training_and_for_nothing_else() -> None:
    made = scheduler(victim_work("a", 9, training=True), victim_work("b", 1), workers="xyz")
    assert ask(made, "x") == "a/train"
    assert ask(made, "y") == "b/0"
    assert ask(made, "z") is None
    made.finish("x", ok=True)
    assert ask(made, "z") == "a/0"


def test_the_longest_waiting_work_starts_first_and_trainings_before_helping() -> None:
    made = scheduler(
        victim_work("a", 9),
        victim_work("b", 2, training=True),
        victim_work("c", 5, training=True),
        workers="wxyz",
    )
    assert [ask(made, worker) for worker in "wxyz"] == ["a/0", "c/train", "b/train", "a/1"]


def test_helpers_go_where_most_work_is_left_per_worker() -> None:
    made = scheduler(victim_work("a", 10), victim_work("b", 7), workers="uvwxy")
    # waiting per worker on it, a : b after each: 9/1 : –, 9/1 : 6/1, 8/2 : 6/1, 8/2 : 5/2, 7/3 : 5/2
    assert [ask(made, worker) for worker in "uvwxy"] == ["a/0", "b/0", "a/1", "b/1", "a/2"]


def test_a_lost_worker_no_longer_counts_as_on_its_victim() -> None:
    made = scheduler(victim_work("a", 2), victim_work("b", 7), workers="xyz")
    assert [ask(made, worker) for worker in "xyz"] == ["b/0", "a/0", "b/1"]
    made.lose("y", charged=False)
    made.join("y")
    assert ask(made, "y") == "a/1"


def test_a_worker_that_moved_on_no_longer_counts_as_on_the_victim_it_left() -> None:
    made = scheduler(victim_work("a", 1), victim_work("b", 7), workers="xyz")
    assert [ask(made, worker) for worker in "xy"] == ["b/0", "a/0"]
    made.finish("y", ok=False)
    assert ask(made, "y") == "b/1"
    assert ask(made, "z") == "a/0"


def test_a_worker_returns_to_the_victim_it_held_most_recently() -> None:
    made = scheduler(victim_work("a", 3), victim_work("b", 3), workers="xy")
    assert (ask(made, "x"), ask(made, "y")) == ("a/0", "b/0")
    for ok, following in ((False, "a/1"), (False, "a/2"), (True, "b/1"), (False, "b/2")):
        made.finish("x", ok=ok)
        assert ask(made, "x") == following
    made.finish("y", ok=True)
    assert ask(made, "y") == "b/1"
    made.finish("x", ok=True)
    assert ask(made, "x") == "a/0"
    made.lose("y", charged=False)
    made.finish("x", ok=True)
    assert ask(made, "x") == "a/1", "b/1 waits as well, but x was on a last"


# Stopping


def test_a_drained_scheduler_finishes_what_runs_and_keeps_the_rest_waiting() -> None:
    made = scheduler(victim_work("a", 3), workers="xy")
    ask(made, "x")
    ask(made, "y")
    made.drain()
    assert not made.finished
    made.finish("x", ok=True)
    assert ask(made, "x") is None
    assert made.finish("y", ok=False).state == "retry"
    assert made.finished
    assert counts(made) == (2, 0, 1, 0)


def test_abandoning_stops_at_once_and_charges_nobody() -> None:
    made = scheduler(victim_work("a", 3, training=True), max_attempts=1)
    ask(made, "w")
    made.abandon()
    assert made.finished
    assert counts(made) == (4, 0, 0, 0)
    assert made.running == 0
    assert made.lose("w", charged=True) is None


# Contradictions


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_attempts": 0}, "max_attempts is 0.*at least 1"),
        ({"max_losses": -1}, "max_losses is -1.*at least 0"),
    ],
)
def test_limits_out_of_range_are_refused(limits: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scheduler([], **limits)


def test_a_victim_with_two_entries_or_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="victim a has two entries"):
        Scheduler([victim_work("a", 1), victim_work("a", 1)])
    with pytest.raises(ValueError, match="victim a: its count is -1"):
        Scheduler([victim_work("a", -1)])


@pytest.mark.parametrize(("count", "message"), [(3, "ended 1 short"), (1, "more units than its count")])
def test_a_count_that_the_units_belie_is_refused(count: int, message: str) -> None:
    made = scheduler(VictimWork("a", None, victim_work("a", 2).units, count))
    with pytest.raises(ValueError, match=f"victim a: .*{message}"):
        for _ in range(3):
            made.next_unit("w")
            made.finish("w", ok=True)


def test_calls_that_contradict_each_other_are_refused() -> None:
    made = scheduler(victim_work("a", 2))
    with pytest.raises(ValueError, match="w joined already"):
        made.join("w")
    with pytest.raises(ValueError, match="w runs no unit"):
        made.finish("w", ok=True)
    made.next_unit("w")
    with pytest.raises(ValueError, match="w still runs a/0"):
        made.next_unit("w")
    for call in (
        lambda: made.next_unit("v"),
        lambda: made.finish("v", ok=True),
        lambda: made.lose("v", charged=True),
    ):
        with pytest.raises(ValueError, match="v has not joined or was lost; live workers: w"):
            call()
    assert counts(made) == (1, 1, 0, 0), "a refused call changes nothing"


# Whole sweeps, in virtual time


def simulate(
    work: list[VictimWork], workers: int, *, load: float, train: float
) -> tuple[float, list[tuple[str, str]], Counter[str]]:
    """Run a sweep in which an evaluation unit takes 1 hour and a worker can hold one victim at a time.

    Loading a victim takes `load` hours, training it `train`. Returns the hours until the end, every load as
    (worker, victim), and how often each victim was trained.
    """
    made = Scheduler(work)
    idle = [f"w{i}" for i in range(workers)]
    for worker in idle:
        made.join(worker)
    loaded: dict[str, str] = {}
    loads: list[tuple[str, str]] = []
    trained: Counter[str] = Counter()
    events: list[tuple[float, str]] = []
    now = 0.0
    while not made.finished:
        still = []
        for worker in idle:
            unit = made.next_unit(worker)
            if unit is None:
                still.append(worker)
                continue
            hours, name = (train if isinstance(unit, Training) else 1.0), unit.victim.victim_id
            trained[name] += isinstance(unit, Training)
            if loaded.get(worker) != name:
                loaded[worker] = name
                loads.append((worker, name))
                hours += load
            heapq.heappush(events, (now + hours, worker))
        now, worker = heapq.heappop(events)
        made.finish(worker, ok=True)
        idle = [*still, worker]
    assert made.done == made.total
    return now, loads, trained


def test_four_victims_on_two_workers_are_trained_once_and_hardly_ever_loaded_twice() -> None:
    work = [victim_work(name, 20, training=True) for name in "abcd"]
    hours, loads, trained = simulate(work, 2, load=0.5, train=5)
    assert trained == dict.fromkeys("abcd", 1)
    assert len(loads) == len(set(loads)) <= 5
    assert hours <= (4 * (20 + 5 + 0.5)) / 2 + 1


@pytest.mark.parametrize("workers", [1, 3, 8, 30])
def test_uneven_victims_are_spread_over_all_workers_without_coming_back_to_any(workers: int) -> None:
    sizes = dict(zip("abcdefgh", (200, 3, 40, 40, 1, 90, 15, 60), strict=True))
    work = [victim_work(name, count, training=name in "acf") for name, count in sizes.items()]
    hours, loads, trained = simulate(work, workers, load=0.5, train=4)
    assert trained == {name: int(name in "acf") for name in sizes}
    assert len(loads) == len(set(loads)), "no worker loads a victim twice"
    # Graham's bound for list scheduling: the work is shared out evenly, but for a last chain of training,
    # loading and one unit that nobody can shorten.
    busy = sum(sizes.values()) + 3 * 4 + 0.5 * len(loads)
    assert hours <= busy / workers + (4 + 0.5 + 1 + 0.5)


def test_a_single_large_victim_is_shared_by_everybody_once_it_is_trained() -> None:
    hours, loads, trained = simulate([victim_work("a", 64, training=True)], 8, load=0.5, train=4)
    assert trained == {"a": 1}
    assert len(loads) == 8
    assert hours <= 0.5 + 4 + 64 / 8 + 1


# Pools that grow, and of mixed machines


def test_what_could_start_now_waits_for_no_training() -> None:
    made = scheduler(victim_work("a", 5, training=True), victim_work("b", 3), workers="v")
    assert (made.startable, made.useful) == (1 + 3, 9)
    assert ask(made, "v") == "a/train"
    assert (made.startable, made.useful) == (3, 1 + 8 + 1)
    made.drain()
    assert (made.startable, made.useful) == (0, 1)


def test_when_all_runs_one_worker_more_is_of_use_for_what_may_fail() -> None:
    made = scheduler(victim_work("a", 2), workers="vwx")
    assert [ask(made, worker) for worker in "vwx"] == ["a/0", "a/1", None]
    assert made.useful == 3
    made.finish("v", ok=True)
    assert made.useful == 2
    made.finish("w", ok=False)
    assert (made.useful, made.startable) == (1, 1)
    assert ask(made, "x") == "a/1"


def test_weak_workers_leave_large_victims_to_strong_ones() -> None:
    """A CPU begins with the smallest, a GPU with the largest; at the end both are on what is left."""
    made = scheduler(
        *(victim_work(name, count) for name, count in [("s", 2), ("m", 4), ("l", 9)]), workers=""
    )
    made.join("cpu", strong=False)
    made.join("gpu")
    assert [ask(made, "cpu"), ask(made, "gpu")] == ["s/0", "l/0"]
    order: dict[str, list[str]] = {"cpu": ["s"], "gpu": ["l"]}
    for turn in range(14):  # the GPU is three times as fast
        for worker in ("gpu", "cpu")[: 2 if turn % 3 == 2 else 1]:
            if made.running and worker in made._running:
                made.finish(worker, ok=True)
            if unit := ask(made, worker):
                order[worker] += [unit[0]] if unit[0] != order[worker][-1] else []
    assert order == {"cpu": ["s", "m"], "gpu": ["l", "m"]}
