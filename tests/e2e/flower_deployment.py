"""The example app on a SuperLink and five SuperNodes, each a process of its own: TLS, node authentication, losses.

    python -m tests.e2e.flower_deployment FOLDER

To be run in a network namespace that has only ``lo`` (``test_flower.py`` does). SuperNode 1 is killed (SIGKILL) when it
has been asked for its shares, and stays away. SuperNode 2 is stopped when the server has its vector, and is started
again: what Flower remembered of it is gone then, and its journal is not. For the phase in which it is away Flower gives
it up, and it is there in the next round. The nodes ask for the deployment's signature on roster and models. The result
of the app is in FOLDER/result.json, what the processes said in FOLDER/*.log.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from protocols.roster import Identity, Roster, load_signer

ROOT = Path(__file__).parents[2]
APP = ROOT / "examples" / "flower"
BIN = Path(sys.executable).parent
NODES = 5
ROUNDS = 2
LOST, RESTARTED = 1, 2
SECONDS = 240


def certificates(folder: Path) -> None:
    """A CA, and with it a certificate for 127.0.0.1."""
    now, ca_key, key = datetime.datetime.now(datetime.UTC), ec.generate_private_key(ec.SECP384R1()), _new_key()
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("test CA", "127.0.0.1")]

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(names[0], subject, public, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )

    ca = (
        builder(names[0], ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = builder(names[1], key.public_key()).add_extension(address, critical=False)
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA384()).public_bytes(Encoding.PEM))
    (folder / "server.pem").write_bytes(server.sign(ca_key, hashes.SHA384()).public_bytes(Encoding.PEM))
    (folder / "server.key").write_bytes(key.private_bytes(*pem))


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def node_keys(folder: Path) -> None:
    """For Flower's node authentication. Our identities are others."""
    for i in range(NODES):
        key = _new_key()
        (folder / f"node{i}").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        (folder / f"node{i}.pub").write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))


class Deployment:
    def __init__(self, folder: Path, signed_by: str) -> None:
        self.folder, self.signed_by = folder, signed_by
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], stdout=log, stderr=subprocess.STDOUT, env=self.environment(name)
        )

    def run(self, *command: str) -> None:
        with (self.folder / "commands.log").open("ab") as log:
            subprocess.run(
                [str(BIN / command[0]), *command[1:]],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment("cli"),
                check=True,
            )

    def environment(self, name: str) -> dict[str, str]:
        home = self.folder / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        config = f'[superlink.real]\naddress = "127.0.0.1:8000"\nroot-certificates = "{self.folder}/ca.pem"\n'
        (home / "config.toml").write_text(config)
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": str(home)}
        example = {"SECAGG_EXAMPLE": str(self.folder), "PATH": f"{BIN}:{os.environ['PATH']}"}
        return os.environ | quiet | example

    def superlink(self) -> None:
        tls = ("--ssl-ca-certfile", "ca.pem", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key")
        paths = [str(self.folder / part) if "." in part else part for part in tls]
        options = ("--enable-supernode-auth", "--disable-runtime-dependency-installation", "--port", "8000")
        self.start("superlink", "flower-superlink", *paths, *options)

    def supernode(self, i: int) -> None:
        folder = self.folder
        config = f'partition-id={i} secagg-identity="{folder}/{i}.key" secagg-roster="{folder}/roster.toml"'
        config += f' secagg-signed-by="{self.signed_by}"'
        self.start(
            f"node{i}",
            "flower-supernode",
            *("--superlink", "127.0.0.1:8000", "--root-certificates", f"{folder}/ca.pem"),
            *("--auth-supernode-private-key", f"{folder}/node{i}"),
            *("--node-config", f'{config} secagg-journal="{folder}/{i}.db"', "--port", str(9100 + i)),
        )

    def said(self, name: str, words: str) -> int:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace").count(words) if path.exists() else 0

    def until(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.05)

    def send(self, name: str, *signals: signal.Signals) -> None:
        for one in signals:
            self.processes[name].send_signal(one)

    def stop(self, name: str, *signals: signal.Signals) -> None:
        self.send(name, *signals)
        self.processes.pop(name).wait()

    def end(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def deploy(folder: Path) -> None:
    certificates(folder)
    node_keys(folder)
    identities = [Identity.generate(f"client-{i}") for i in range(NODES)]
    for i, identity in enumerate(identities):
        identity.save(folder / f"{i}.key")
    Identity.generate("hospitals").save(folder / "deployment.key")
    signer = load_signer(folder / "deployment.key")
    Roster.of(identities).signed(signer).save(folder / "roster.toml")
    running = Deployment(folder, str(signer.signatory))
    try:
        running.superlink()
        running.until(lambda: running.said("superlink", "Uvicorn running") > 0, "the SuperLink does not start")
        for i in range(NODES):
            running.run("flwr", "supernode", "register", str(folder / f"node{i}.pub"), "real")
            running.supernode(i)
        settings = f"num-server-rounds={ROUNDS} timeout=45.0"
        running.start("run", "flwr", "run", str(APP), "real", "--run-config", settings, "--stream")

        lost, restarted = f"node{LOST}", f"node{RESTARTED}"
        running.until(lambda: running.said(lost, "Receiving: train.secagg") == 2, "nobody was asked for shares")
        running.stop(lost, signal.SIGKILL)
        running.until(lambda: running.said(restarted, "Sent successfully") == 4, "nothing was uploaded")
        # Flower drops the reply of a node that leaves before the server has fetched it: let it stand still till then.
        running.send(restarted, signal.SIGSTOP)
        running.until(lambda: running.said("node0", "Receiving: train.secagg") == 5, "nobody was asked to sign")
        # After SIGKILL the SuperLink would not let it back for a minute.
        running.stop(restarted, signal.SIGTERM, signal.SIGCONT)
        running.supernode(RESTARTED)
        running.until(lambda: rounds_in(folder) == ROUNDS, "the run does not end")
    finally:
        running.end()


def rounds_in(folder: Path) -> int:
    try:
        return len(json.loads((folder / "result.json").read_text()))
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    deploy(Path(sys.argv[1]))
