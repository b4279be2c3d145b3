"""`python3 docker/base_image.py [IMAGE]`: have the image that docker/Dockerfile begins with, with or without a registry.

In this order, the first that works: it is there already; `docker pull`; a copy of this machine's own Python packages, where it
is Debian 12 (seconds); debootstrap from a Debian mirror (a minute, needs root). What is made here stands for the public image
on this machine alone, and says so in its label clearing.base: it is never pushed.

--method pull|host|debootstrap forces one way. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGE = "python:3.11-slim-bookworm"
SUITE = "bookworm"
PULL_TIMEOUT_S = 120
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
SEEDS = (
    *("python3", "python3-pip", "python3-venv", "ca-certificates", "iproute2", "bash", "coreutils"),
    *("apt", "dpkg", "base-files", "base-passwd", "findutils", "grep", "sed", "gzip", "tar"),
    *("hostname", "procps", "debianutils", "util-linux", "login", "passwd", "libc-bin"),
    *("debian-archive-keyring",),
)
_LEFT_OUT = re.compile(
    r"^/usr/share/(doc|man|info|locale|lintian|bug|doc-base|menu)(/|$)|^/var/cache/|^/etc/(init\.d|cron)"
)
_MERGED = re.compile(r"^/(bin|sbin|lib|lib32|lib64|libx32)/")
"""Directories that are links into /usr: packages name files in them, tar must see where they are."""
_EMPTY_DIRECTORIES = (
    *("var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/lib/apt/lists/partial"),
    *("var/cache/apt/archives/partial", "var/log", "var/tmp", "usr/local/bin"),
    *("proc", "sys", "dev", "run", "root", "home", "etc", "tmp"),
)


def say(text: str) -> None:
    """Tell the user on standard error."""
    sys.stderr.write(f"base image: {text}\n")


def docker(*arguments: str, timeout_s: float = 60) -> bool:
    """Run docker quietly; whether it succeeded."""
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def installed() -> dict[str, dict[str, str]]:
    """Return the fields of each installed package by name, its whole paragraph as "raw"."""
    found: dict[str, dict[str, str]] = {}
    status = Path("/var/lib/dpkg/status")
    if not status.exists():
        return found
    for paragraph in status.read_text("utf-8").split("\n\n"):
        lines = [line for line in paragraph.split("\n") if line[:1] not in (" ", "")]
        fields = dict(line.partition(":")[::2] for line in lines)
        fields = {name: value.strip() for name, value in fields.items()}
        name = fields.get("Package", "")
        if fields.get("Status") == "install ok installed" and name not in found:
            found[name] = {**fields, "raw": paragraph.strip("\n")}
    return found


def closure(packages: dict[str, dict[str, str]]) -> set[str]:
    """Return SEEDS, what is essential, and all that they depend on."""
    provided: dict[str, str] = {}
    for name, fields in packages.items():
        for one in filter(None, re.split(r"\s*,\s*", fields.get("Provides", ""))):
            provided.setdefault(one.split()[0], name)
    wanted: set[str] = set()
    waiting = [name for name in SEEDS if name in packages]
    waiting += [name for name, fields in packages.items() if fields.get("Essential") == "yes"]
    while waiting:
        name = waiting.pop()
        if name in wanted:
            continue
        wanted.add(name)
        needs = ", ".join(packages[name].get(key, "") for key in ("Pre-Depends", "Depends"))
        for alternatives in re.split(r"\s*,\s*", needs):
            names = [re.split(r"[ (:]", one.strip())[0] for one in alternatives.split("|")]
            found = [one if one in packages else provided.get(one, "") for one in names]
            waiting += [one for one in found if one][:1]
    return wanted


def files_of(packages: dict[str, dict[str, str]], wanted: set[str]) -> set[str]:
    """Return the paths that make up the wanted packages, and the links that belong to them."""
    files: set[str] = set()
    for name in wanted:
        listing = Path(f"/var/lib/dpkg/info/{name}.list")
        if not listing.exists():
            listing = listing.with_name(f"{name}:{packages[name]['Architecture']}.list")
        for line in listing.read_text("utf-8").split("\n"):
            path = _MERGED.sub(r"/usr/\1/", line)
            if path and path != "/." and not _LEFT_OUT.match(path) and os.path.lexists(path):
                files.add(path)
        files.update(glob.glob(glob.escape(str(listing.with_suffix(""))) + ".*"))  # noqa: PTH207
    for link in filter(Path.is_symlink, Path("/etc/alternatives").iterdir()):
        if _MERGED.sub(r"/usr/\1/", str(link.readlink())) in files:
            for directory in ("/usr/bin", "/usr/sbin"):
                used = Path(directory) / link.name
                if used.is_symlink() and used.readlink() == link:
                    files |= {str(link), str(used)}
    files |= {
        f"/{name}"
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
        if Path(f"/{name}").is_symlink()
    }
    kept = ("/etc/debian_version", "/etc/os-release", "/var/lib/dpkg/info/format")
    kept += ("/etc/nsswitch.conf", "/etc/apt/sources.list.d/debian.sources", "/usr/share/keyrings")
    return files | {path for path in kept if os.path.lexists(path)}


def is_debian() -> bool:
    """Return whether this machine's own packages can stand for the image."""
    release = Path("/etc/os-release")
    text = release.read_text("utf-8") if release.exists() else ""
    packages = installed()
    needed = {"python3", "python3-pip", "python3-venv"}
    return (
        "\nID=debian\n" in f"\n{text}\n"
        and 'VERSION_ID="12"' in text
        and needed <= set(packages)
        and shutil.which("ldconfig") is not None
    )


def copy_host(root: Path) -> None:
    """Fill `root` with this machine's own packages."""
    packages = installed()
    wanted = closure(packages)
    paths = sorted(files_of(packages, wanted))
    for name in _EMPTY_DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    status = "".join(packages[name]["raw"] + "\n\n" for name in sorted(wanted))
    (root / "var/lib/dpkg/status").write_text(status)
    listing = root.parent / "list"
    listing.write_text("".join(f".{path}\n" for path in paths))
    pack = ["tar", "-C", "/", "--no-recursion", "-T", str(listing), "-c"]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        subprocess.run(["tar", "-C", str(root), "-x"], stdin=packing.stdout, check=True)
    if packing.returncode:
        raise SystemExit("base image: the host's files could not be copied")
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    users = (root / "etc/passwd").read_text().splitlines()
    shadow = "".join(f"{user.split(':')[0]}:*:19000:0:99999:7:::\n" for user in users)
    (root / "etc/shadow").write_text(shadow)
    (root / "etc/shadow").chmod(0o640)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    subprocess.run(["ldconfig", "-r", str(root)], check=False, stderr=subprocess.DEVNULL)
    say(f"{len(wanted)} packages, {len(paths)} paths of this machine")


def bootstrap(root: Path) -> None:
    """Fill `root` from a Debian mirror."""
    if shutil.which("debootstrap") is None:
        raise SystemExit(
            "base image: no registry is reachable and debootstrap is not installed: apt-get install debootstrap"
        )
    packages = "python3,python3-pip,python3-venv,ca-certificates,iproute2,procps"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        said = (made.stdout + made.stderr).strip()[-600:]
        raise SystemExit(f"base image: debootstrap failed: {said}")
    for name in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
        shutil.rmtree(root / name, ignore_errors=True)


def load(image: str, root: Path, method: str) -> None:
    """Make an image of `root`."""
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    python = root / "usr/local/bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.unlink(missing_ok=True)
    python.symlink_to("/usr/bin/python3")
    # What this machine trusts: package indexes may be reached through a proxy with a certificate of its own.
    trusted = Path("/") / AUTHORITIES
    if trusted.exists():
        (root / AUTHORITIES).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trusted, root / AUTHORITIES)
    changes = [
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "ENV LANG=C.UTF-8",
        f"ENV PIP_CERT=/{AUTHORITIES}",
        f"ENV SSL_CERT_FILE=/{AUTHORITIES}",
        'CMD ["python3"]',
        f"LABEL clearing.base={method}",
    ]
    options = [word for change in changes for word in ("--change", change)]
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as packing:
        subprocess.run(
            ["docker", "import", *options, "-", image],
            stdin=packing.stdout,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    say(f"made {image} by {method}")


def main() -> int:
    """Have the image; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("image", nargs="?", default=IMAGE)
    parser.add_argument("--method", choices=["pull", "host", "debootstrap"])
    options = parser.parse_args()
    if not docker("version"):
        raise SystemExit("base image: no docker engine answers: start one, or set DOCKER_HOST")
    if docker("image", "inspect", options.image):
        return 0
    if options.method in (None, "pull"):
        if docker("pull", "-q", options.image, timeout_s=PULL_TIMEOUT_S):
            say(f"pulled {options.image}")
            return 0
        say(f"no registry gives {options.image}")
        if options.method:
            return 1
    method = options.method or ("host" if is_debian() else "debootstrap")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        root.mkdir()
        (copy_host if method == "host" else bootstrap)(root)
        load(options.image, root, method)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
