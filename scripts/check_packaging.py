"""Verify packaging/ with the tools that will read it: systemd, sysusers, nginx, an XML parser.

A tool that is missing is said and skipped; with ``--strict`` (continuous integration) it fails.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

PACKAGING = Path(__file__).resolve().parents[1] / "packaging"
PORTS = {"helexa-cortex": 31313, "helexa-cortex-metrics": 31314}
PORTS |= {"helexa-neuron": 13131, "helexa-bench": 13132}


def run(*command: str) -> str:
    """Empty when ``command`` succeeded silently enough, else what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (done.stderr + done.stdout).strip() or "failed" if done.returncode else ""


def check_units(folder: Path) -> list[str]:
    """``systemd-analyze verify`` on copies whose program exists here."""
    problems = []
    for unit in sorted((PACKAGING / "systemd").glob("*.service")):
        text = unit.read_text()
        program = shutil.which("true") or "/bin/true"
        copy = folder / unit.name
        copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={program}", text, flags=re.MULTILINE))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        said = [line for line in done.stderr.splitlines() if unit.name in line]
        if done.returncode or said:
            problems.append(f"{unit.name}: {'; '.join(said) or done.stderr.strip()}")
        required = (
            "StateDirectory=",
            "TimeoutStartSec=",
            "StartLimitIntervalSec=",
            "Restart=on-failure",
        )
        problems += [f"{unit.name}: {key} is missing" for key in required if key not in text]
    return problems


def check_sysusers(_folder: Path) -> list[str]:
    """``systemd-sysusers --dry-run``, and a user for every unit."""
    file = PACKAGING / "sysusers.d" / "helexa.conf"
    said = run("systemd-sysusers", "--dry-run", str(file))
    problems = [f"{file.name}: {said}"] if said else []
    users = set(re.findall(r"^u (\S+)", file.read_text(), flags=re.MULTILINE))
    for unit in (PACKAGING / "systemd").glob("*.service"):
        wanted = set(re.findall(r"^User=(\S+)", unit.read_text(), flags=re.MULTILINE))
        problems += [f"{unit.name}: user {u} is not in {file.name}" for u in wanted - users]
    return problems


def check_nginx(folder: Path) -> list[str]:
    """``nginx -t`` on the example with a certificate made for the occasion."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    said = run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "1", "-subj", "/CN=llm.example.org"),
        *("-keyout", str(key), "-out", str(cert)),
    )
    if said:
        return [f"openssl: {said}"]
    text = (PACKAGING / "nginx" / "helexa.conf").read_text()
    text = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {key};", text)
    text = re.sub(r"ssl_certificate  .*;", f"ssl_certificate {cert};", text)
    (folder / "helexa.conf").write_text(text.replace("listen 443", "listen 127.0.0.1:44300"))
    paths = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"pid {folder}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} include {folder}/helexa.conf; }}\n"
    )
    said = run("nginx", "-t", "-p", str(folder), "-c", str(main))
    return [f"helexa.conf: {said}"] if said else []


def check_firewalld(_folder: Path) -> list[str]:
    """Every role's service opens its default port and no other."""
    problems = []
    for name, port in PORTS.items():
        root = ET.parse(PACKAGING / "firewalld" / f"{name}.xml").getroot()  # noqa: S314 - ours
        opened = [(p.get("protocol"), p.get("port")) for p in root.findall("port")]
        if root.tag != "service" or opened != [("tcp", str(port))]:
            problems.append(f"{name}.xml: opens {opened}, wanted tcp {port}")
    return problems


CHECKS = (
    (check_units, ("systemd-analyze",)),
    (check_sysusers, ("systemd-sysusers",)),
    (check_nginx, ("nginx", "openssl")),
    (check_firewalld, ()),
)


def main() -> int:
    """Run every check; the exit status."""
    strict = "--strict" in sys.argv[1:]
    problems: list[str] = []
    for check, tools in CHECKS:
        missing = [tool for tool in tools if shutil.which(tool) is None]
        if missing:
            words = f"{check.__name__}: {', '.join(missing)} is not installed"
            print(f"packaging: skipped {words}")
            problems += [words] if strict else []
            continue
        with tempfile.TemporaryDirectory(prefix="helexa-check-") as folder:
            problems += check(Path(folder))
    for problem in problems:
        print(f"packaging: {problem}", file=sys.stderr)
    print(f"packaging: {len(CHECKS)} checks, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
