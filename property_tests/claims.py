"""What docs/reliability.md says: faults and invariants, each with what shows it; harnesses; what is not shown."""

from __future__ import annotations

import attrs

INTRODUCTION = """# What may go wrong, and how it is shown that it does no harm

This page is written by `python -m property_tests.reliability`: its claims stand in `property_tests/claims.py`, beside
the names of the tests that show them, and a test checks that each of these is there. The figures at its end come from
the runs themselves.

- **Acknowledged**: `append` returned Ok. Nothing that follows from an event is visible outside before that.
- **Level** of a store: `power` survives loss of power (file, SQLite and PostgreSQL, by default); `process` survives
  kill -9 only; `none` is memory.
- **Outcome** of an append: `Ok`, `Rejected` (not in the log, now or later), `Unknown` (found out by reading back).
- A step's function runs **at least once** for every recorded outcome, and exactly once if no crash fell between its
  effect and its record; its outcome is recorded **at most once** and never changes.
"""


@attrs.frozen
class Claim:
    """One line of a table, and the tests that show it: `file::name`, or `file` for all of it."""

    name: str
    what: str
    then: str
    proofs: tuple[str, ...]


FILE = "tests/test_file_store.py"
SQLITE = "tests/test_sqlite_store.py"
POSTGRES = "tests/test_postgres_store.py"
CONTRACT = "zart_core/testing/contract.py::StoreContract"
CLAIMING = "zart_core/testing/contract_claims.py::ClaimChecks"
EDGE = "zart_core/testing/contract_edge.py::EdgeChecks"
TURNS = "zart_core/testing/contract_turns.py::TurnChecks"
MACHINES = "property_tests/test_store_machines.py::test_store_beside_model"
POWER = "property_tests/test_file_power_loss.py::test_power_loss"
RECORDED = "property_tests/test_recorded_calls.py::test_power_loss"
INJECTED = "property_tests/test_injected_errors.py::test_one_call_fails"
KILLS = "property_tests/test_kill9.py::test_a_worker_killed_again_and_again_loses_nothing"
POINTS = "property_tests/test_crash_points.py::test_no_crash_shows"
LAWS = "property_tests/test_laws.py"
LARGER = f"{LAWS}::test_larger_programs_replay_and_survive_crashes"
WEATHER = "tests/test_engine_weather.py"
STEPS = "tests/test_engine_steps.py"
RECOVERY = "tests/test_engine_recovery.py"
PARKING = "tests/test_engine_parking.py"
CHAOS = "property_tests/test_chaos.py::test_chaos_ends_well"
COMMITS = "property_tests/test_postgres_faults.py::test_every_commit_of_a_workflow_may_go_wrong"
SIMULATION = "tests/test_simulate.py::test_faults_strike_and_nothing_shows"

FAULTS = (
    Claim(
        "F1",
        "the process dies at any instruction",
        "reopening needs no repair; everything acknowledged is there; a step between its effect and its record runs "
        "again, with the same idempotency key",
        (POINTS, KILLS, SIMULATION),
    ),
    Claim(
        "F2",
        "loss of power: what was not synced is lost, kept in part, or reordered by sector",
        "what is recovered is a prefix that holds everything acknowledged",
        (POWER, RECORDED),
    ),
    Claim(
        "F3",
        "a torn, zero-filled or garbage tail",
        "cut to the last whole frame, and said so, if it begins at or after the durable mark; else refused",
        (f"{FILE}::test_every_cut", f"{FILE}::test_torn_tail_is_told", POWER),
    ),
    Claim(
        "F4",
        "a directory entry is lost",
        "the directory is synced before anything in a new file is acknowledged",
        (POWER, "property_tests/test_recorded_calls.py::test_names_matter"),
    ),
    Claim(
        "F5",
        "fsync fails",
        "never again on that descriptor: the store has failed, waiters get Unknown; reopening reads back",
        (f"{FILE}::test_failed_sync", POWER, INJECTED),
    ),
    Claim(
        "F6",
        "disk full, quota, size limit",
        "Rejected, with nothing left behind; it works again when there is room",
        (
            f"{FILE}::test_full",
            f"{FILE}::test_full_disk",
            f"{SQLITE}::test_full_disk",
            f"{WEATHER}::test_a_full_store_works_again_when_there_is_room",
        ),
    ),
    Claim(
        "F7",
        "short writes, EINTR",
        "written on; a short write acknowledges nothing",
        (f"{FILE}::test_short_and_interrupted_calls", POWER),
    ),
    Claim(
        "F8",
        "a read error",
        "raised with path and offset; never the end of the log, never a reason to cut",
        (f"{FILE}::test_read_error", INJECTED),
    ),
    Claim(
        "F9",
        "a flipped bit; a duplicated, misdirected or stale block",
        "refused with LogCorrupt: where, what was expected, what was found; `zart salvage` copies what is whole",
        (
            f"{FILE}::test_every_bit",
            f"{FILE}::test_misplaced_frames",
            "property_tests/test_sqlite_bits.py::test_every_bit_of_a_payload",
            "tests/test_salvage.py::test_a_byte_anywhere",
        ),
    ),
    Claim(
        "F10",
        "a missing or shortened segment",
        "refused as damage",
        (f"{FILE}::test_missing_segment", f"{FILE}::test_shortened_segment"),
    ),
    Claim(
        "F11",
        "a file log is opened twice",
        "StoreLocked at once",
        (f"{FILE}::test_second_opener", f"{FILE}::test_second_process"),
    ),
    Claim(
        "F12",
        "fork",
        "a store or engine of the parent refuses in the child",
        (
            f"{FILE}::test_fork",
            f"{SQLITE}::test_fork",
            f"{RECOVERY}::test_a_forked_child_is_told_to_open_its_own",
        ),
    ),
    Claim(
        "F13",
        "clocks jump, workers disagree",
        "timers never early and never twice; recorded times never decrease; leases have a monotonic clock",
        (
            f"{STEPS}::test_timers_are_never_early_and_never_twice_whatever_the_clock_does",
            f"{STEPS}::test_times_never_decrease_though_the_clock_does",
            SIMULATION,
        ),
    ),
    Claim(
        "F14",
        "duplicate, late and reordered messages",
        "a key counts once; an outcome for what is settled is ignored and counted",
        (
            "tests/test_engine.py::test_a_key_counts_once_for_the_life_of_the_execution",
            "tests/test_interpreter.py::test_a_held_outcome_that_was_overtaken_is_ignored",
            MACHINES,
        ),
    ),
    Claim(
        "F15",
        "a worker goes on after its lease was lost",
        "its appends are rejected by the fence, in the same transaction",
        (f"{CLAIMING}::test_zombie", f"{POSTGRES}::test_no_zombie_writes_in_any_schedule", CHAOS, SIMULATION),
    ),
    Claim(
        "F16",
        "the connection is lost during a commit",
        "Unknown; read back, and go on",
        (
            f"{POSTGRES}::test_a_commit_that_nobody_answered_is_unknown",
            COMMITS,
            "property_tests/test_postgres_faults.py::test_work_goes_on_over_a_server_that_goes_away",
            f"{WEATHER}::test_each_weather_at_each_append_loses_and_repeats_nothing",
        ),
    ),
    Claim(
        "F17",
        "conflicts and deadlocks of a database",
        "the whole transaction is tried again, a bounded number of times, then it surfaces",
        (f"{POSTGRES}::test_deadlocks_and_serialization_failures_are_tried_again", f"{SQLITE}::test_locked"),
    ),
    Claim(
        "F18",
        "a step that kills its worker each time",
        "after `max_crashes` it resolves as StepLost; its neighbours are unharmed",
        (
            f"{RECOVERY}::test_a_killer_resolves_as_step_lost",
            f"{RECOVERY}::test_killers_never_condemn_their_neighbours",
        ),
    ),
    Claim(
        "F19",
        "a huge payload or history",
        "refused before it is written, with the limit and what to do",
        (
            "tests/test_codec.py::test_payload_limit",
            f"{PARKING}::test_too_many_events_park_with_advice",
            f"{EDGE}::test_too_large",
        ),
    ),
    Claim(
        "F20",
        "a result that cannot be encoded, or does not come back",
        "a recorded failure of that step that names the place",
        (
            "tests/test_codec.py::test_unencodable",
            "tests/test_values.py::test_refused",
            "property_tests/test_codec_laws.py::test_wrong_type_is_refused_or_comes_back",
        ),
    ),
    Claim(
        "F21",
        "a malformed, unknown or newer record",
        "that execution is parked with the position, the others go on",
        (
            f"{PARKING}::test_a_damaged_record_parks_one_execution_alone",
            "property_tests/test_codec_laws.py::test_mutated_records",
        ),
    ),
    Claim(
        "F22",
        "hostile ids, names and payloads",
        "refused at the edge, or kept as they are; never a path, never SQL, never an attribute",
        (
            f"{EDGE}::test_hostile_id",
            f"{EDGE}::test_hostile_name",
            "property_tests/test_codec_laws.py::test_hostile_bytes",
            "tests/test_codec.py::test_fields_that_a_log_makes_up",
        ),
    ),
    Claim(
        "F23",
        "the code has changed, replay diverges",
        "parked, nothing written; goes on when code that fits is there",
        (
            f"{PARKING}::test_diverged_shows_both_sides_and_writes_nothing",
            f"{PARKING}::test_it_goes_on_by_itself_with_fixed_code",
        ),
    ),
    Claim(
        "F24",
        "a slow or hanging disk or server",
        "the worker starts nothing once its lease may have run out",
        (SIMULATION,),
    ),
    Claim(
        "F25",
        "a change of segments is interrupted anywhere",
        "the old state is readable until the new one is durable",
        (f"{FILE}::test_unfinished_segment", POWER),
    ),
    Claim(
        "F26",
        "a newer format, an older reader",
        "refused, with both versions named; logs of every released format stay in tests/data",
        (
            f"{FILE}::test_newer_format",
            f"{FILE}::test_golden",
            f"{SQLITE}::test_newer_format",
            f"{SQLITE}::test_golden",
        ),
    ),
    Claim(
        "F27",
        "KeyboardInterrupt or another end in the middle of an append",
        "the outcome is one of the three, locks are released, no run is ended by it",
        (
            f"{FILE}::test_interrupted_append",
            "tests/test_writer.py::test_an_interrupt_in_the_middle_of_an_append_is_unknown_to_its_caller_and_stops_no_other",
            "tests/test_interpreter.py::test_the_end_of_the_process_is_no_outcome",
        ),
    ),
)

INVARIANTS = (
    Claim(
        "I1",
        "what was acknowledged is a prefix of what is recovered, that of what was attempted, byte for byte",
        "",
        (POWER, RECORDED, KILLS),
    ),
    Claim(
        "I2",
        "positions without gap or repeat, times never decrease",
        "",
        (f"{LAWS}::test_every_log_is_in_order", POINTS),
    ),
    Claim(
        "I3",
        "a turn is whole or absent",
        "",
        (POWER, "tests/test_crashes.py::test_torn_appends_are_explored"),
    ),
    Claim(
        "I4",
        "what was readable never changes",
        "",
        (f"{TURNS}::test_reading_does_not_alias", MACHINES, POWER),
    ),
    Claim("I5", "recovery is idempotent, also when it crashes itself", "", (POWER,)),
    Claim(
        "I6",
        "fences never decrease; nothing of an older one after a newer",
        "",
        (MACHINES, f"{CLAIMING}::test_fence_grows", CHAOS),
    ),
    Claim("I7", "nothing after a terminal event", "", (f"{TURNS}::test_closed_is_final", MACHINES, POINTS)),
    Claim(
        "I8",
        "a fault in one execution changes nothing in another",
        "",
        (
            f"{SQLITE}::test_damage_is_alone",
            f"{WEATHER}::test_what_a_store_refuses_at_its_edge_hinders_nobody",
        ),
    ),
    Claim("I9", "Ok is in, Rejected is out, Unknown is found out by reading", "", (INJECTED, POWER)),
    Claim(
        "I10",
        "the result is that of the run without a crash",
        "",
        (POINTS, f"{LAWS}::test_a_crash_at_any_turn_changes_nothing"),
    ),
    Claim(
        "I11",
        "at most one outcome of a command, one terminal event of a run",
        "",
        (f"{LAWS}::test_every_log_is_in_order", POINTS, CHAOS),
    ),
    Claim(
        "I12",
        "executed at least once for every outcome; exactly once without a crash between effect and record",
        "",
        (POINTS, COMMITS, SIMULATION),
    ),
    Claim("I13", "no step runs before its predecessor's outcome is durable", "", (POINTS, SIMULATION)),
    Claim("I14", "timers never early, once, none lost", "", (POINTS, SIMULATION)),
    Claim("I15", "each event consumed at most once, none lost, order kept", "", (LARGER, POINTS)),
    Claim(
        "I16",
        "replay is pure: the same elsewhere, with time, chance, sockets and files out of reach",
        "",
        (f"{LAWS}::test_another_process_with_another_hash_seed_decides_the_same",),
    ),
    Claim(
        "I17",
        "cancellation is seen once, innermost and newest first; compensation in reverse order",
        "",
        (
            f"{LAWS}::test_every_log_is_in_order",
            "tests/test_branches.py::test_cancellation_strikes_innermost_first_newest_first_each_owner_after_its_own",
            POINTS,
        ),
    ),
    Claim(
        "I18", "once faults stop, everything ends within a bound of virtual time", "", (SIMULATION, POINTS)
    ),
    Claim(
        "I19",
        "starts without an outcome are bounded",
        "",
        ("tests/test_crashes.py::test_a_killer_is_lost", POINTS),
    ),
    Claim(
        "I20",
        "the replay of a prefix, and the rest, is the replay of the whole",
        "",
        (f"{LAWS}::test_replay_of_a_prefix_and_the_rest_is_replay_of_all", LARGER),
    ),
    Claim("I21", "the same script gives the same on every store", "", (MACHINES, CONTRACT)),
)

HARNESSES_TITLE = """## The harnesses

None of them knows the bugs that are seeded: `make seeded-bugs` plants each of them, one at a time, and plays the
harnesses until one notices. A run of CI does so with the harness that is known to notice soonest.
"""

HARNESSES = (
    Claim(
        "laws",
        "random programs against the laws P1 to P6, and against a direct reading of the program",
        "",
        (LAWS,),
    ),
    Claim(
        "crash points",
        "many shapes of workflow, their host dead before, in and after every append, effect and delivery",
        "",
        ("property_tests/test_crash_points.py", "property_tests/shapes.py"),
    ),
    Claim(
        "every line",
        "death at each line that a run executes of interpreter, hosts and stores, and at pairs of lines",
        "",
        ("property_tests/test_every_line.py", "property_tests/test_every_line_of_the_engine.py"),
    ),
    Claim(
        "edits",
        "every edit of ten workflows under every prefix of their histories: what does not fit is parked, and not lost",
        "",
        ("property_tests/test_edits.py",),
    ),
    Claim(
        "store machines",
        "each store beside a plain model, step by step",
        "",
        ("property_tests/test_store_machines.py",),
    ),
    Claim("contract", "the suite that authors of stores run", "", (CONTRACT,)),
    Claim(
        "simulated file system",
        "the file log on a disk that loses power at every call",
        "",
        ("property_tests/test_file_power_loss.py",),
    ),
    Claim(
        "recorded system calls",
        "the unmodified stores under strace; crash states rebuilt from what they really did, and reopened",
        "",
        ("property_tests/test_recorded_calls.py",),
    ),
    Claim(
        "injected errors",
        "one system call after the other fails",
        "",
        ("property_tests/test_injected_errors.py",),
    ),
    Claim(
        "kill -9",
        "a worker killed again and again over one log: file, SQLite and PostgreSQL, 150 times each, 450 kills in all",
        "",
        ("property_tests/test_kill9.py",),
    ),
    Claim(
        "chaos",
        "three worker processes on one PostgreSQL, killed, stopped past their lease, cut off, their server restarted",
        "",
        ("property_tests/test_chaos.py",),
    ),
    Claim(
        "PostgreSQL faults",
        "each commit of a workflow dropped, or done and not answered; the server gone under a living engine",
        "",
        ("property_tests/test_postgres_faults.py",),
    ),
    Claim(
        "simulation",
        "real engines in one thread and virtual time, everything that goes wrong drawn from one seed",
        "",
        ("tests/test_simulate.py", "property_tests/test_simulation.py"),
    ),
    Claim(
        "offered steps",
        "the same worlds, in which any worker may take the steps of another",
        "",
        ("property_tests/test_offered_steps.py",),
    ),
    Claim(
        "limited queues",
        "the same worlds, with limits of a queue over all workers: what runs at once, and begins in a time, is counted",
        "",
        ("property_tests/test_limited_queues.py",),
    ),
    Claim(
        "decoders",
        "hostile and mutated bytes",
        "",
        ("property_tests/test_decoders.py", "property_tests/test_codec_laws.py"),
    ),
    Claim(
        "fuzzing",
        "workflows whose steps answer anything that their types allow",
        "",
        ("property_tests/test_fuzzing.py",),
    ),
    Claim(
        "seeded bugs",
        "breaks of one line, each noticed by one of the above",
        "",
        ("property_tests/test_seeded_bugs.py",),
    ),
    Claim(
        "mutants",
        "a small change anywhere in interpreter, codec and stores, and the tests that pass there; 90 % are noticed",
        "",
        ("property_tests/test_mutants.py", "property_tests/mutants/__main__.py"),
    ),
)

NOT_PROVED = """## What is not shown

- **Real hardware.** A loss of power is simulated: on a simulated disk, and from recorded system calls. A disk that
  acknowledges a sync and does nothing defeats every log.
- **Network file systems.** `zart doctor` says when a directory is on one; nothing here was run on one.
- **SQLite itself.** Up to 3.51.2 (mended in 3.51.3, 3.50.7 and 3.44.6) it has a
  [race of checkpoints](https://sqlite.org/wal.html) by which several processes on one database may lose a commit or
  damage it; rare enough that its authors had to slow SQLite down to see it. `zart doctor` shows the version; let
  several workers run on a newer one.
- **The order in which branches run** is fixed by tests of examples, not by a law over random programs: of the breaks
  that were tried, a queue of branches that is last in, first out was not noticed by the generic harnesses.
- **Snapshots** (F10, F25) do not exist: a log is replayed whole, so there is nothing to compact but segments.
"""

ABOUT_FIGURES = """Of the last run of each harness that was put on record on the machine that wrote this page. A commit
with a + had changes beside it."""
