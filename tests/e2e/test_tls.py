"""docs/tls.md: its commands and its example run as they stand, and what it says is refused is, in its words.

All runs in a namespace with no network but ``lo``, but for the example of a transport, which takes a free port of it.
"""

from __future__ import annotations

import doctest
import re
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.scenes.namespaces import BIN, ROOT, alone, needed

PAGE = (ROOT / "docs" / "tls.md").read_text("utf-8")
SECTIONS = {part.splitlines()[0]: part for part in PAGE.split("\n## ")[1:]}
OFFLINE = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def blocks(section: str, language: str) -> str:
    """The code of a section in one language, in its order."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[section], re.DOTALL | re.MULTILINE)
    assert found
    return "".join(found)


def refusals(section: str) -> dict[str, str]:
    """What is wrong -> what is said then, from a section's table."""
    rows = re.findall(r"^\| ([^|]*) \| `([^`]*)`[^|]*\|$", SECTIONS[section], re.MULTILINE)
    assert rows
    return dict(rows)


def ran(folder: Path, seconds: float, *scripts: str) -> str:
    """What the commands say, one script after the other in one shell; each must succeed."""
    script = folder / "script.sh"
    script.write_text("\n".join(["set -eu", f"cd {folder}", *scripts]))
    settings = OFFLINE | {"SECAGG": str(ROOT), "PYTHONPATH": str(ROOT), "PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        return alone(f"bash {script}", settings, seconds)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        logs = sorted({*folder.glob("*.log"), *folder.glob("kits/*/*/*/log.txt"), *folder.glob("kits/*/*/*.log")})
        said = [f"{path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in logs]
        raise AssertionError("\n".join([str(error), *said])) from error


def test_a_transport_that_knows_who_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The example's sum; garbage in another's name is the speaker's; who has no certificate of the CA is out."""
    commands = blocks("A CA", "sh") + blocks("A transport of your own", "sh")
    others = f"mkdir other; cd other\n{blocks('A CA', 'sh')}certificate ann clientAuth DNS:ann"
    for script in (commands, others):
        subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "example"}
    for example in doctest.DocTestParser().get_examples((ROOT / "docs" / "embedding.md").read_text("utf-8")):
        exec(compile(example.source, "embedding.md", "exec"), scope)
    exec(compile(blocks("A transport of your own", "python"), "tls.md", "exec"), scope)
    http, url = scope["http"], scope["url"]
    try:
        printed = capfd.readouterr().out.splitlines()[-1]
        assert f"It prints `{printed}`" in SECTIONS["A transport of your own"]
        ann = scope["tls"]("ann", ssl.PROTOCOL_TLS_CLIENT)
        assert speaks(scope, f"{url}/bob", known=True, tls=ann) == ["ann"]

        for name, folder in (("certificate required", None), ("unknown ca", tmp_path / "other")):
            assert f"`{name}`" in SECTIONS["A transport of your own"]
            context = ssl.create_default_context(cafile="ca.pem")
            if folder is not None:
                context.load_cert_chain(folder / "ann.pem", folder / "ann.key")
            with pytest.raises(ssl.SSLError, match=name.replace(" ", ".")), connected(http, context) as line:
                line.recv(1)
        stranger = ssl.create_default_context(cafile=tmp_path / "other" / "ca.pem")
        with pytest.raises(ssl.SSLError, match="certificate verify failed"), connected(http, stranger):
            pass
        older = scope["tls"]("ann", ssl.PROTOCOL_TLS_CLIENT)
        older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match=r"(?i)version"), connected(http, older):
            pass
    finally:
        http.shutdown()
        http.server_close()


def test_control_where_nobody_is_known_nobody_is_blamed() -> None:
    scope: dict[str, Any] = {"__name__": "example"}
    for example in doctest.DocTestParser().get_examples((ROOT / "docs" / "embedding.md").read_text("utf-8")):
        if example.source.startswith("http.shutdown"):
            break
        exec(compile(example.source, "embedding.md", "exec"), scope)
    try:
        assert speaks(scope, f"{scope['url']}/bob", known=True) == ["bob"]  # whoever it was
        assert speaks(scope, f"{scope['url']}/bob", known=False) == []
    finally:
        scope["http"].shutdown()
        scope["http"].server_close()


def speaks(scope: dict[str, Any], url: str, *, known: bool, tls: ssl.SSLContext | None = None) -> list[str]:
    """Who is blamed for what is no frame, sent to ``url`` in a round that has just begun."""
    rounds = scope["Rounds"](scope["plan"].next_round(), scope["roster"], seconds=20, known=known)
    scope["http"].rounds = rounds
    with urlopen(url, data=b"garbage", timeout=30, context=tls):
        return list(rounds.server.liars)


def connected(http: Any, context: ssl.SSLContext) -> ssl.SSLSocket:
    line = socket.create_connection(("127.0.0.1", http.server_port), timeout=30)
    return context.wrap_socket(line, server_hostname="127.0.0.1")


FLOWER = """
serves() { openssl s_server -accept $1 -cert $2.pem -key $3.key -quiet > $2.log 2>&1 < /dev/zero & }
node() { echo "=== $1"; shift; timeout 40 flower-supernode --superlink 127.0.0.1:"$@" --port 9200 2>&1 || true; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 1 -keyout new.key -out new.pem -subj /CN=new
cat ca.pem new.pem > both.pem
certificate elsewhere serverAuth IP:127.0.0.2
openssl x509 -req -in server.csr -extfile server.ext -CA ca.pem -CAkey ca.key -days -1 -out late.pem
openssl x509 -req -in server.csr -extfile server.ext -CA new.pem -CAkey new.key -days 1 -out next.pem
serves 8001 elsewhere elsewhere
serves 8002 late server
serves 8003 next server
ssh-keygen -q -t ecdsa -b 384 -N "" -f stranger
key="--auth-supernode-private-key"
node "the SuperLink's certificate is another CA's" 8003 --root-certificates ca.pem $key node0
node "it is for another address" 8001 --root-certificates ca.pem $key node0
node "it is too old" 8002 --root-certificates ca.pem $key node0
node "a node without a key" 8000 --root-certificates ca.pem
node "a key that is not registered" 8000 --root-certificates ca.pem $key stranger
node "\\`--insecure\\`, and a key" 8000 --insecure $key node0
node "\\`--insecure\\`, and none" 8000 --insecure --max-retries 2
node "another CA, in the bundle" 8003 --root-certificates both.pem $key node0 --max-retries 1
"""


@pytest.mark.long
def test_flower(tmp_path: Path) -> None:
    """A round over TLS; SuperNodes with the wrong certificate, key or port are refused; a bundle has both CAs."""
    pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")
    needed()
    said = ran(tmp_path, 600, blocks("A CA", "sh"), blocks("Flower", "sh"), FLOWER)
    assert "the sum is of 3 clients out of 3" in said
    answers = dict(part.split("\n", 1) for part in said.split("\n=== ")[1:])
    for what, words in refusals("Flower").items():
        assert words in answers[what], (what, answers)
    assert "SSL" not in answers["another CA, in the bundle"]  # though it is no SuperLink that answers
    assert "SuperNode ID" not in "".join(answers.values())
    log = (tmp_path / "superlink.log").read_text()
    for path in ("fleet", "control", "runtime"):  # all on one port
        assert f"POST /v1/{path}/" in log
        assert f"`/v1/{path}/`" in PAGE


NVFLARE = """
cd $HOME/kits/hospitals/prod_00
while [ -e localhost/daemon_pid.fl ]; do sleep 0.5; done
rm -f localhost/log.txt
localhost/startup/start.sh > again.log 2>&1
(cd $HOME && nvflare provision -p project.yml -w others --force)
cp -r site-1 plain
cp -r site-3 false
cp site-2/startup/client.* false/startup
until (exec 3<> /dev/tcp/127.0.0.1/8002) 2> /dev/null; do sleep 0.5; done
timeout 40 $HOME/others/hospitals/prod_00/site-1/startup/sub_start.sh --once > other.log 2>&1 &
timeout 40 false/startup/sub_start.sh --once > false.log 2>&1 &
sed -i s/secure_train=true/secure_train=false/ plain/startup/sub_start.sh
timeout 40 plain/startup/sub_start.sh --once > plain.log 2>&1 || true
wait || true
"""


@pytest.mark.long
def test_nvflare(tmp_path: Path) -> None:
    """A provisioned server and five sites make three sums; sites with other certificates, or none, are not let in."""
    pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")
    needed()
    said = ran(tmp_path, 600, blocks("NVFlare", "sh"), NVFLARE)
    sites = ", ".join(f"site-{i}" for i in range(1, 6))
    assert re.findall(r"Round (\d): a sum over ([^;]*);", said) == [(str(i), sites) for i in range(3)]
    kits = tmp_path / "kits" / "hospitals" / "prod_00"
    words = list(refusals("NVFlare").values())
    for name, expected in zip(("other.log", "plain.log", "localhost/log.txt"), words, strict=True):
        assert expected in (kits / name).read_text()
    for name in ("other", "plain", "false"):
        assert "Successfully registered" not in (kits / f"{name}.log").read_text()
    assert (tmp_path / "kits" / "hospitals" / "state" / "cert.json").stat().st_mode & 0o777 == 0o600


RAY = """
python bare.py
python bare.py ray
agent=$(ss -ltnpH | sed -n 's/.*127.0.0.1:\\([0-9]*\\) .*ray::RuntimeEnv.*/\\1/p')
python -c "import http.client as c; h = c.HTTPConnection('127.0.0.1', $agent); h.request('GET', '/'); \
print('in clear:', h.getresponse().status)"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 1 -keyout new.key -out new.pem -subj /CN=new
env -u RAY_USE_TLS timeout 150 python square.py > none.log 2>&1 &
none=$!
RAY_TLS_CA_CERT=$PWD/new.pem timeout 150 python square.py > other.log 2>&1 || true
wait $none || true
"""
BARE = """
import socket, ssl, sys
context = ssl.create_default_context(cafile="ca.pem")
for name in sys.argv[1:]:
    context.load_cert_chain(name + ".pem", name + ".key")
context.set_alpn_protocols(["h2"])
line = socket.create_connection(("127.0.0.1", 6379), timeout=30)
print("answered:", context.wrap_socket(line, server_hostname="127.0.0.1").recv(1))
"""
"""What Ray says first, over TLS, to whoever has connected: nothing, unless it has a certificate."""
SESSIONS = "mkdir -p /tmp/ray; mount -t tmpfs tmpfs /tmp/ray"


@pytest.mark.long
def test_ray(tmp_path: Path) -> None:
    """A cluster of one machine with certificates; drivers without, or with another CA's, get nothing."""
    pytest.importorskip("ray", reason="NOT TESTED: the engine needs the extra ray")
    needed()
    (tmp_path / "bare.py").write_text(BARE)
    said = ran(tmp_path, 600, SESSIONS, blocks("A CA", "sh"), blocks("Ray", "sh"), RAY)
    assert "[1, 2, 3]" in said
    without, with_one = re.findall(r"^answered: b'(.*)'$", said, re.MULTILINE)
    assert (without, with_one != "") == ("", True)
    assert "in clear:" in said
    for name in ("none", "other"):
        log = (tmp_path / f"{name}.log").read_text()
        assert "Timed out while waiting for GCS" in log
        assert "[1, 2, 3]" not in log
