"""The wheel installs into clean environments and works there without the source tree.

One abi3 wheel is built, and tried on each CPython from 3.10 up that this machine has, with the
oldest Polars that is supported and with the newest.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
OLDEST_POLARS = "polars==1.30.0"
NEWEST_POLARS = "polars"
WINDOWS = sys.platform == "win32"

pytestmark = [
    pytest.mark.wheel,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("cargo") is None, reason="no cargo to build a wheel with"),
]


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    # Nothing of the environment that these tests run in may reach the clean one.
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def _candidates() -> Iterator[str]:
    yield sys.executable
    for minor in range(10, 15):
        on_path = shutil.which(f"python3.{minor}")
        if on_path is not None:
            yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob("versions/*/bin/python")))


def _version(python: str) -> str | None:
    """Ask a Python for its version; None where it does not run, or is none that we support."""
    ask = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        told = subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, timeout=60, check=True
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    supported = told[0] == "cpython" and told[1] == "3" and int(told[2]) >= 10
    return f"3.{told[2]}" if supported else None


@cache
def pythons() -> dict[str, str]:
    """Each CPython minor version on this machine, and one interpreter of it."""
    found: dict[str, str] = {}
    for python in _candidates():
        version = _version(python)
        if version is not None:
            found.setdefault(version, python)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the maturin of this environment from what the extension is built from."""
    maturin = shutil.which("maturin", path=str(Path(sys.executable).parent))
    if maturin is None:
        pytest.skip("no maturin beside this Python to build a wheel with")
    out = tmp_path_factory.mktemp("wheel")
    _run(maturin, "build", "--release", "--locked", "--out", out, cwd=ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=list(pythons()))
def clean_python(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The Python of a new environment that holds the wheel and nothing else."""
    place = tmp_path_factory.mktemp(f"python{request.param}")
    _run(pythons()[request.param], "-m", "venv", "--without-pip", place)
    python = place / ("Scripts/python.exe" if WINDOWS else "bin/python")
    _pip_install(python, "--no-deps", str(wheel))
    return python


def _pip_install(python: Path, *what: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    _run(*pip, "install", "--quiet", "--upgrade", "--only-binary=:all:", *what)


def test_what_the_wheel_holds(wheel: Path) -> None:
    assert re.fullmatch(r"polars_redis-[\w.]+-cp310-abi3-\w+\.whl", wheel.name)
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0].split("-")[0] for name in names}
    assert tops == {"polars_redis"}
    assert "polars_redis/py.typed" in names
    assert "polars_redis/__init__.py" in names
    assert [n for n in names if re.fullmatch(r"polars_redis/_core\.(abi3\.so|pyd)", n)]
    assert [n for n in names if n.endswith("/licenses/LICENSE")]


@pytest.mark.parametrize("polars", [OLDEST_POLARS, NEWEST_POLARS])
def test_works_without_the_source_tree(
    clean_python: Path, polars: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    _pip_install(clean_python, polars)
    smoke = shutil.copy(ROOT / "tests" / "smoke.py", tmp_path)
    server = []
    if not WINDOWS or os.environ.get("REDIS_URL"):
        server = ["--url", request.getfixturevalue("redis_url")]
    told = _run(clean_python, "-I", smoke, *server, cwd=tmp_path)
    assert told.startswith("ok: ")
    assert str(clean_python.parents[1]) in told
