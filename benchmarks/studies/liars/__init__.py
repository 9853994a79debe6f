"""What liars cost in the pairwise protocols, and what the exchange costs that finds them.

*server*  a server's processor seconds with one liar over those without, n = ``n`` clients of ``d`` coordinates, both
          protocols: the round as a whole, and its last phase. The liar is a holder that reveals a wrong share, one that
          complains about everything that was dealt to it, or a dealer of boxes that nobody can open.
*reveal*  the last phase with a lying holder over the same without, ``large_n`` clients of ``large_d`` coordinates.
*exchange* bytes and seconds of one client for dealing verifiably, over plain dealing of the same secrets.
*rounds*  so many random rounds with as many liars as are planned for: an exact sum over the others, or names.
*budgets* what a liar that is never thrown out does to a privacy budget.

All clients are real ones; liars differ in one answer (``lies``). What a server is told is recorded once, and played to
new servers, with and without a liar in turn (``parties``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.case import Measured, Say
from benchmarks.regression.dealing import PLAIN_BYTES, Amid
from benchmarks.studies.liars.lies import LIES, BadBoxes, FalseComplaints
from benchmarks.studies.liars.parties import Recording, Setting
from benchmarks.studies.liars.random_rounds import random_round, spent
from protocols.pairwise.parameters import parameters_of
from protocols.rounds.phases import Phase
from protocols.wire import HEADER_BYTES
from secagg.codec import u32
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Config:
    parts: str = "server,reveal,exchange,rounds,budgets"
    n: int = 200
    d: int = 10_000
    large_n: int = 1000
    large_d: int = 10_000
    corrupt: str = "0.1"
    dropout: str = "0.1"
    rounds: int = 10
    seed: int = 1
    repeats: int = 5

    def __post_init__(self) -> None:
        if not set(self.parts.split(",")) <= _PARTS:
            raise UsageError(f"parts are some of {', '.join(sorted(_PARTS))}")
        if min(self.n, self.large_n) < 10 or min(self.d, self.large_d, self.rounds, self.repeats) < 1 or self.seed < 0:
            raise UsageError("n is at least 10, d, rounds and repeats at least 1, a seed not negative")


_PARTS = {"server", "reveal", "exchange", "rounds", "budgets"}
DEFAULTS = Config()


def run(config: Config, say: Say) -> Measured:
    parts = set(config.parts.split(","))
    figures: dict[str, float] = {}
    ratios: dict[str, float] = {}
    if "server" in parts:
        for protocol in ("secagg", "secagg+"):
            _server(config, protocol, figures, ratios, say)
    if parts & {"reveal", "exchange"}:
        setting = Setting("secagg+", config.large_n, config.large_d, config.corrupt, config.dropout)
        say(f"secagg+: n = {setting.n}, d = {setting.d}: recording a round")
        honest = Recording.of(setting)
        if "reveal" in parts:
            liars = {"holder": honest.with_wrong_shares(setting.n // 2)}
            _against(config, "large", honest, liars, figures, ratios, say)
        if "exchange" in parts:
            _exchange(config, honest, figures, ratios, say)
    if "rounds" in parts:
        _rounds(config, figures, say)
    if "budgets" in parts:
        _budgets(figures, say)
    return Measured(figures, ratios)


def _server(config: Config, protocol: str, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    setting, liar = Setting(protocol, config.n, config.d, config.corrupt, config.dropout), config.n // 2
    say(f"{protocol}: n = {config.n}, d = {config.d}: recording three rounds")
    honest = Recording.of(setting)
    liars = {
        "holder": honest.with_wrong_shares(liar),
        "complainer": Recording.of(setting, {liar: FalseComplaints}),
        "dealer": Recording.of(setting, {liar: BadBoxes}),
    }
    _against(config, protocol, honest, liars, figures, ratios, say)


def _against(
    config: Config,
    name: str,
    honest: Recording,
    liars: dict[str, Recording],
    figures: dict[str, float],
    ratios: dict[str, float],
    say: Say,
) -> None:
    took = [
        {"honest": honest.replayed(), **{liar: recorded.replayed() for liar, recorded in liars.items()}}
        for _ in range(config.repeats)
    ]
    figures[f"{name}_honest_server_s"] = median(sum(one["honest"].values()) for one in took)
    figures[f"{name}_honest_reveal_s"] = median(one["honest"][Phase.REVEAL] for one in took)
    for liar in liars:
        figures[f"{name}_{liar}_server_s"] = median(sum(one[liar].values()) for one in took)
        figures[f"{name}_{liar}_reveal_s"] = median(one[liar][Phase.REVEAL] for one in took)
        whole = median(sum(one[liar].values()) / sum(one["honest"].values()) for one in took)
        last = median(one[liar][Phase.REVEAL] / one["honest"][Phase.REVEAL] for one in took)
        ratios[f"{name}_{liar}_server"], ratios[f"{name}_{liar}_reveal"] = whole, last
        say(
            f"{name}: with a lying {liar} a round takes the server {whole:.2f} times as long, its last phase {last:.2f}"
        )


def _exchange(config: Config, honest: Recording, figures: dict[str, float], ratios: dict[str, float], say: Say) -> None:
    """Bytes are those of the recorded round; plain dealing sends a list of boxes, and gets one."""
    parameters, n = parameters_of(honest.plan), honest.plan.clients
    k, t = parameters.degree, parameters.threshold
    up = {phase: sum(len(frame) for _, frame in frames) / n for phase, frames in honest.frames.items()}
    down = {phase: size / n for phase, size in honest.bytes_down.items()}
    plain = HEADER_BYTES + u32.least + k * PLAIN_BYTES
    figures["exchange_k"], figures["exchange_t"] = k, t
    figures["exchange_share_bytes_up"] = up[Phase.SHARE]
    figures["exchange_complain_bytes_up"] = up[Phase.COMPLAIN]
    figures["exchange_more_bytes_up"] = up[Phase.SHARE] + up[Phase.COMPLAIN] - plain
    figures["exchange_more_bytes_down"] = down[Phase.COMPLAIN] + down[Phase.UPLOAD] - plain
    ratios["exchange_bytes_up"] = (up[Phase.SHARE] + up[Phase.COMPLAIN]) / plain

    say(f"dealing: k = {k}, t = {t}")
    seconds = Amid(k, t).seconds(3 * config.repeats)
    figures["exchange_deal_s"], figures["exchange_open_s"] = seconds.deal, seconds.open
    figures["exchange_plain_deal_s"], figures["exchange_plain_open_s"] = seconds.plain_deal, seconds.plain_open
    figures["exchange_more_s"] = seconds.more
    ratios["exchange_deal"] = seconds.deal / seconds.plain_deal
    ratios["exchange_open"] = seconds.open / seconds.plain_open


def _rounds(config: Config, figures: dict[str, float], say: Say) -> None:
    ended = []
    for number in range(config.rounds):
        ended.append(random_round(config.seed, number, config.corrupt, config.dropout))
        if (number + 1) % 100 == 0:
            say(f"{number + 1} rounds with liars: {sum(one.exact for one in ended)} exact sums, the others with names")
    figures["rounds"] = len(ended)
    figures["rounds_exact"] = sum(one.exact for one in ended)
    figures["rounds_named"] = sum(not one.exact for one in ended)
    figures["rounds_burnt"] = sum(one.burnt for one in ended)
    figures["rounds_with_liars"] = sum(bool(one.liars) for one in ended)
    figures["rounds_caught"] = sum(bool(one.named) for one in ended)


def _budgets(figures: dict[str, float], say: Say) -> None:
    for name, lie in {"honest": None, **LIES}.items():
        with TemporaryDirectory() as folder:
            found = spent(lie, Path(folder))
        figures[f"budget_{name}_sums"] = found.sums
        figures[f"budget_{name}_burnt"] = found.burnt
        figures[f"budget_{name}_epsilon"] = found.epsilon
        say(f"{name}: {found.sums} sums, {found.burnt} without, epsilon {found.epsilon:.2f}; named: {found.named}")
