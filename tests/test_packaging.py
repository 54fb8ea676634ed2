"""The wheel holds the package and its configuration, nothing else, and works without the checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from certtrain import _paths
from certtrain.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")

pytestmark = pytest.mark.skipif(
    not (REPOSITORY / "setup.cfg").is_file(), reason="needs the source tree, not an installed copy"
)


def _run(*command: str | Path, cwd: Path, python_path: Path | None = None) -> str:
    """The output of a command that sees no checkout of certtrain except `cwd` and `python_path`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if python_path is not None:
        environment["PYTHONPATH"] = str(python_path)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _config_groups() -> list[str]:
    """The folders of conf/ that hold options to choose from."""
    groups = [folder.name for folder in (REPOSITORY / "conf").iterdir() if any(folder.glob("*.yaml"))]
    return sorted(set(groups) - {"hydra"})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree, so that building leaves nothing in the checkout, with a run and a test inside."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "LICENSE", "README.md"):
        if (REPOSITORY / name).is_file():
            shutil.copy(REPOSITORY / name, copy)
    for name in ("certtrain", "conf"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=IGNORED)
    for name in ("tests/__init__.py", "outputs/run/.hydra/config.yaml", "benchmarks/__init__.py"):
        (copy / name).parent.mkdir(parents=True)
        (copy / name).write_text("")
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds nothing but the installed wheel."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, "--no-deps", "--no-index", "--target", target, wheel, cwd=target)
    return target


def test_the_wheel_holds_the_package_and_its_configuration_only(source: Path, wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {path.relative_to(source).as_posix() for path in (source / "certtrain").rglob("*.py")}
    config = {
        f"certtrain/{path.relative_to(source).as_posix()}" for path in (source / "conf").rglob("*.yaml")
    }
    assert {"certtrain/conf/config.yaml", "certtrain/conf/relaxation/deeppoly.yaml"} <= config
    assert modules - names == set(), "a folder of certtrain/ has no __init__.py"
    assert config - names == set()
    assert {name.split("/")[0] for name in names} == {"certtrain", "certtrain-0.1.0.dist-info"}
    assert {name for name in names if name.endswith(".yaml")} == config


def test_the_wheel_depends_on_neither_torchvision_nor_any_torch(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read("certtrain-0.1.0.dist-info/METADATA").decode()
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, flags=re.MULTILINE)
    assert not [line for line in required if line.startswith("torchvision")]
    assert [line for line in required if re.match(r"torch\b", line)] == ["torch<2.14,>=2.5"]


def test_the_lock_pins_every_dependency_that_is_declared(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read("certtrain-0.1.0.dist-info/METADATA").decode()
    required = re.findall(r"^Requires-Dist: ([\w.-]+)", metadata, flags=re.MULTILINE)
    pinned = re.findall(r"^([\w.-]+)==", (REPOSITORY / "requirements.lock").read_text(), flags=re.MULTILINE)
    assert _normalized(required) - _normalized(pinned) == set()


def _normalized(names: list[str]) -> set[str]:
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


@pytest.mark.parametrize("how", ["module", "script"])
def test_the_installed_command_works_from_any_directory(installed: Path, tmp_path: Path, how: str):
    command = {
        "module": (sys.executable, "-m", "certtrain"),
        "script": (sys.executable, "-c", "import sys; from certtrain.__main__ import main; sys.exit(main())"),
    }[how]
    text = _run(*command, "--help", cwd=tmp_path, python_path=installed)
    assert [group for group in _config_groups() if not re.search(rf"\b{group}\b", text)] == []
    assert list(tmp_path.iterdir()) == [], "--help must not create a run directory"


def test_the_installed_package_finds_its_own_configuration(installed: Path, tmp_path: Path):
    where = "from certtrain._paths import config_dir; print(config_dir())"
    assert Path(_run(sys.executable, "-c", where, cwd=tmp_path, python_path=installed).strip()) == (
        installed / "certtrain" / "conf"
    )
    assert (installed / "bin" / "certtrain").is_file() or os.name == "nt"


def test_a_checkout_works_without_being_installed(source: Path):
    where = "from certtrain._paths import config_dir; print(config_dir())"
    assert Path(_run(sys.executable, "-c", where, cwd=source).strip()) == source / "conf"


def test_a_missing_configuration_is_told_with_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_paths, "_PACKAGE", tmp_path / "certtrain")
    with pytest.raises(ConfigError, match=r"neither .*certtrain.conf nor .*conf has a config\.yaml"):
        _paths.config_dir()
