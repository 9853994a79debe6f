"""Training while data and clients come and go: what streams take, and what is left of them after kills.

intake   A recorded stream, in lines of a file, is taken in by one process alone, with a sum of what is new after each
         hour of it: ``events_per_second`` by that thread's processor, and the peak of memory beyond what was there
         before, for all events and for a tenth of them over the same time.
kills    Processes that take in a stream and sum it up by the real protocol are killed at random points, while the file
         grows and is rotated, clients drop out, and some sums fail: ``kills_lost`` and ``kills_twice`` are numbers of
         events, by the sums that came out, ``kills_changed`` of sums that came out as two.
wall     Clients that train at paces of their own: simulated time to a quality of asynchronous training, beside rounds
         that wait for all and rounds that call more than they need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.case import Measured, Say
from benchmarks.studies.flow import intake, kills, wall
from secagg.errors import UsageError

_WALL = wall.Settings()


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = "intake,kills,wall"
    events: int = 1_000_000
    users: int = 50_000
    kills: int = 200
    killed_events: int = 2000
    seed: int = 1
    wall_users: int = _WALL.users
    wall_silos: int = _WALL.silos
    wall_size: int = _WALL.size
    wall_rounds: int = _WALL.rounds
    wall_seeds: int = _WALL.seeds

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= {*_PARTS, "wall"}:
            raise UsageError(f"parts are some of {', '.join(_PARTS)}, wall")
        if min(self.events, self.users, self.killed_events) < 10 or self.kills < 1:
            raise UsageError("events and users are 10 or more, kills one or more")
        self.of_wall()

    def of_wall(self) -> wall.Settings:
        return wall.Settings(
            users=self.wall_users,
            silos=self.wall_silos,
            size=self.wall_size,
            rounds=self.wall_rounds,
            seeds=self.wall_seeds,
        )


def run(config: Config, say: Say) -> Measured:
    figures, ratios = dict[str, float](), dict[str, float]()
    for part in config.parts.split(","):
        say(f"{part} ...")
        if part == "wall":
            measured = wall.run(config.of_wall(), say)
            figures |= measured.figures
            ratios |= measured.ratios
            continue
        with TemporaryDirectory() as folder:
            figures |= _PARTS[part](config, Path(folder))
    if figures.get("memory_extra_of_a_tenth"):  # in a process that had more before, it may take none
        ratios["memory_of_ten_times_the_events"] = figures["memory_extra"] / figures["memory_extra_of_a_tenth"]
    return Measured(figures, ratios)


def _intake(config: Config, folder: Path) -> Mapping[str, float]:
    few, many = folder / "few", folder / "many"
    few.mkdir()
    many.mkdir()
    tenth = intake.found(few, config.events // 10, config.users, config.seed)
    found = intake.found(many, config.events, config.users, config.seed)
    return {
        "events_per_second": found.per_second,
        "events_taken": found.taken,
        "memory_extra": found.extra_bytes,
        "memory_extra_of_a_tenth": tenth.extra_bytes,
    }


def _kills(config: Config, folder: Path) -> Mapping[str, float]:
    found = kills.found(folder, config.killed_events, config.kills, config.seed)
    return {
        "kills": found.kills,
        "kills_amid_a_sum": found.amid,
        "kills_lost": found.lost,
        "kills_twice": found.twice,
        "kills_changed": found.changed,
        "sums": found.sums,
        "sums_failed": found.failed,
    }


_PARTS: Mapping[str, Callable[[Config, Path], Mapping[str, float]]] = {"intake": _intake, "kills": _kills}
DEFAULTS = Config()
