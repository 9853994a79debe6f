"""What an NVFlare site has in its own ``local`` folder: ``secagg.toml``, and the files that this one names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from dp.ledger import Ledger
from protocols.client import Client
from protocols.journal import SqliteJournal
from protocols.policy import Policy
from protocols.roster import Identity, Roster, load_signer
from secagg.at_rest import Keyring
from secagg.errors import DecodeError, UsageError
from secagg.foreign import named_file, parse_toml
from secagg.signed_versions import Signer

SITE_FILE = "secagg.toml"
_KEYS = {"identity", "roster", "journal", "ledger", "deployment", "policy", "signs"}


def site_client(folder: str | Path, site: str, files: ExitStack) -> Client:
    """The client of a site, from ``secagg.toml`` in its ``local`` folder. Paths are relative to the folder::

    identity = "{site}.key"         # {site} is the site's name
    roster = "roster.toml"
    journal = "{site}.db"           # optional: what was said outlives the process
    ledger = "{site}.ledger"        # optional, needs a journal: this site's own privacy budget
    deployment = "hospitals"        # optional: whose newer rounds destroy the older (protocols.client.Client)

    [policy]                        # see protocols.policy.Policy; beacon and ledger_owner in hexadecimal
    min_contributors = 3
    weight_bound = 100              # the largest weight (steps) of this site, if the job weights sites
    users = 40                      # instead, if it is a silo: the most users that it has
    signed_by = "hospitals=cd32..." # the deployment that signs rosters and models; needs a journal

    ``files`` closes the journal and the ledger.
    """
    table, keys = _table(folder), Keyring.of_environment()
    identity = Identity.load(_path(folder, table, "identity", site), keys)
    if identity.name != site:
        raise UsageError(f"the key is that of {identity.name}, and this site is {site}")
    roster = Roster.load(_path(folder, table, "roster", site))
    deployment = table.get("deployment", "")
    if not isinstance(deployment, str):
        raise UsageError(f"the deployment in {SITE_FILE} is not a name")
    policy, journal, ledger = _policy(table.get("policy")), None, None
    if "journal" in table:
        journal = files.enter_context(closing(SqliteJournal(_path(folder, table, "journal", site), keys=keys)))
    if "ledger" in table:
        if journal is None:
            raise UsageError(f"a ledger in {SITE_FILE} needs a journal beside it: what is paid for is remembered there")
        path = _path(folder, table, "ledger", site)
        ledger = files.enter_context(closing(Ledger.open(path, identity.key, keys=keys)))
    return Client(identity, roster, policy=policy, journal=journal, ledger=ledger, deployment=deployment)


def server_ledger(folder: str | Path, files: ExitStack) -> Ledger:
    """The server's budget: the ledger that its own ``secagg.toml`` names, with the key (``identity``) that signs it."""
    table, keys = _table(folder), Keyring.of_environment()
    identity = Identity.load(_path(folder, table, "identity", ""), keys)
    return files.enter_context(closing(Ledger.open(_path(folder, table, "ledger", ""), identity.key, keys=keys)))


def server_signer(folder: str | Path) -> Signer | None:
    """The deployment's signer, if the server's own ``secagg.toml`` names a file with its key (``signs``)."""
    table = _table(folder)
    return load_signer(_path(folder, table, "signs", ""), Keyring.of_environment()) if "signs" in table else None


def site_roster(folder: str | Path) -> Roster:
    """The roster that the server's own ``secagg.toml`` names."""
    return Roster.load(_path(folder, _table(folder), "roster", ""))


def _table(folder: str | Path) -> Mapping[str, object]:
    path = Path(folder) / SITE_FILE
    try:
        table = parse_toml(named_file(path, most=1 << 16))
    except DecodeError:
        raise UsageError(f"{path} is not a TOML file") from None
    if unknown := table.keys() - _KEYS:
        raise UsageError(f"{path} says {', '.join(sorted(unknown))}; known are {', '.join(sorted(_KEYS))}")
    return table


def _path(folder: str | Path, table: Mapping[str, object], what: str, site: str) -> Path:
    name = table.get(what)
    if not isinstance(name, str):
        raise UsageError(f"{SITE_FILE} does not say where the {what} is")
    return Path(folder) / name.replace("{site}", site)


def _policy(table: object) -> Policy:
    if not isinstance(table, dict):
        raise UsageError(f"{SITE_FILE} has no [policy]")
    try:
        return Policy(**table | {name: bytes.fromhex(table.get(name, "")) for name in ("beacon", "ledger_owner")})
    except (TypeError, ValueError) as error:
        raise UsageError(f"[policy] in {SITE_FILE}: {error}") from None
