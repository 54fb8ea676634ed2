"""The wheel holds the package and its configuration, nothing else, and works without the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from certtrain import __version__, _paths
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.job.preflight import check_parts
from certtrain.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[1]
# What only some choices need: in extras, not in the core.
OPTIONAL = {
    "wandb",
    "wandb-workspaces",
    "tensorboard",
    "optuna",
    "onnx",
    "onnxruntime",
    "submitit",
    "mkdocs",
    "playwright",
}
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


def _config_dir(cwd: Path, python_path: Path | None = None) -> Path:
    """What `config_dir` answers in a fresh interpreter."""
    script = "from certtrain._paths import config_dir; print(config_dir())"
    return Path(_run(sys.executable, "-c", script, cwd=cwd, python_path=python_path).strip())


def _dist_info(wheel: Path) -> str:
    return "-".join(wheel.name.split("-")[:2]) + ".dist-info"


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{_dist_info(wheel)}/METADATA").decode()
    return re.findall(r"^Requires-Dist: (.*)$", metadata, flags=re.MULTILINE)


def _distribution(requirement: str) -> str:
    """The normalized name in front of a version, a marker or nothing."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree with a run and a test inside; building it leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "LICENSE", "README.md"):
        if (REPOSITORY / name).is_file():
            shutil.copy(REPOSITORY / name, copy)
    for name in ("certtrain", "conf", "hydra_plugins"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=IGNORED)
    for name in ("tests/__init__.py", "outputs/run/.hydra/config.yaml", "benchmarks/__init__.py"):
        (copy / name).parent.mkdir(parents=True)
        (copy / name).write_text("")
    return copy


@pytest.fixture(scope="module")
def distributions(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that was built from it, as `python -m build` makes them; nothing is fetched."""
    folder = tmp_path_factory.mktemp("distributions")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (built,) = distributions.glob("*.whl")
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
    own = [*(source / "certtrain").rglob("*"), *(source / "hydra_plugins").rglob("*.py")]
    kinds = (".py", ".c", ".h", ".html", ".css", ".js", ".yaml")
    files = (path for path in own if path.suffix in kinds)
    modules = {path.relative_to(source).as_posix() for path in files}
    assert "certtrain/bounds/executors/compiled/substitute.c" in modules
    config = {f"certtrain/{path.relative_to(source).as_posix()}" for path in (source / "conf").rglob("*.yaml")}
    assert {"certtrain/conf/config.yaml", "certtrain/conf/hydra/launcher/joblib.yaml"} <= config
    assert modules - names == set(), "a folder of certtrain/ has no __init__.py"
    assert config - names == set()
    assert {name.split("/")[0] for name in names} == {"certtrain", "hydra_plugins", _dist_info(wheel)}
    assert "certtrain/report/page/templates/page.css" in modules
    assert {name for name in names if name.endswith(".yaml")} == config | {"certtrain/report/page/published.yaml"}


def test_the_sdist_holds_what_the_wheel_is_built_from(source: Path, distributions: Path):
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "setup.cfg", "setup.py", "pyproject.toml", "conf/config.yaml"} <= names
    assert "certtrain/bounds/executors/compiled/substitute.c" in names
    assert [name for name in names if name.startswith(("tests", "outputs", "benchmarks", ".venv"))] == []


def test_the_core_is_small_and_extras_bring_the_rest(wheel: Path):
    lines = _requirements(wheel)
    core = {_distribution(line) for line in lines if "extra ==" not in line}
    assert core & OPTIONAL == set()
    extras: dict[str, set[str]] = {}
    for line in lines:
        if found := re.search(r"extra == [\"']([^\"']+)", line):
            extras.setdefault(found[1], set()).add(_distribution(line))
    brings = {
        "wandb": "wandb",
        "dashboard": "wandb-workspaces",
        "tensorboard": "tensorboard",
        "optuna": "optuna",
        "onnx": "onnxruntime",
        "docs": "mkdocs-material",
        "slurm": "submitit",
        "submitit": "submitit",
        "joblib": "joblib",
    }
    assert {name: package for name, package in brings.items() if package not in extras[name]} == {}
    assert extras["slurm"] == extras["submitit"]


def test_the_wheel_demands_no_torchvision_and_a_bounded_torch(wheel: Path):
    required = _requirements(wheel)
    assert [line for line in required if line.startswith("torchvision")] == []
    assert [line for line in required if re.match(r"torch\b", line)] == ["torch<2.14,>=2.5"]


def test_the_lock_pins_every_declared_dependency(wheel: Path):
    locked = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pinned = {_distribution(line) for line in locked if "==" in line}
    assert {_distribution(line) for line in _requirements(wheel)} - pinned == set()


@pytest.mark.parametrize("command", [("-m", "certtrain"), ("bin/certtrain",)], ids=["module", "script"])
def test_the_installed_command_works_from_any_directory(installed: Path, tmp_path: Path, command: tuple[str, ...]):
    if command[0] == "bin/certtrain":
        command = (str(installed / command[0]),)
    text = _run(sys.executable, *command, "--help", cwd=tmp_path, python_path=installed)
    assert [group for group in _config_groups() if not re.search(rf"\b{group}\b", text)] == []
    assert list(tmp_path.iterdir()) == [], "--help must not create a run directory"


def test_the_installed_wheel_trains_and_certifies_in_any_directory_without_extras(installed: Path, tmp_path: Path):
    missing = tmp_path / "missing"
    missing.mkdir()
    for name in OPTIONAL:
        module = name.replace("-", "_")
        (missing / f"{module}.py").write_text(f"raise ModuleNotFoundError('no {module} here', name={module!r})\n")
    path = Path(os.pathsep.join([str(missing), str(installed)]))
    quick = ["method=grad", "relaxation=ibp", "trainer.max_steps=1", "certify.limit=4", "certify.attack.steps=1"]
    _run(sys.executable, "-m", "certtrain", *quick, "hydra.run.dir=run", cwd=tmp_path, python_path=path)
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_logger_whose_package_is_missing_is_told_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (job,) = compose_jobs(Command(("logger=wandb",), multirun=False, inspects=False))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r'logger=wandb needs .* pip install "certtrain\[wandb\]"'):
        check_parts(parse(plain(job)))
    monkeypatch.delitem(sys.modules, "wandb")
    (tmp_path / "wandb").mkdir()  # what an offline run leaves is no package
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="needs the package wandb"):
        check_parts(parse(plain(job)))


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["cff-version"], cited["version"], cited["license"]) == ("1.2.0", __version__, "Apache-2.0")
    assert cited["authors"]
    assert cited["title"].startswith("certtrain")


def test_pre_commit_runs_the_tools_of_the_environment_and_fetches_nothing():
    repos = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = repos[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert {hook["entry"].split()[2] for hook in hooks} == {"ruff", "mypy"}


def test_the_installed_package_finds_its_own_configuration(installed: Path, tmp_path: Path):
    assert _config_dir(cwd=tmp_path, python_path=installed) == installed.resolve() / "certtrain" / "conf"


def test_a_checkout_works_without_being_installed(source: Path):
    assert _config_dir(cwd=source) == source.resolve() / "conf"


def test_a_missing_configuration_is_told_with_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_paths, "_PACKAGE", tmp_path / "certtrain")
    with pytest.raises(ConfigError, match=r"neither .*certtrain.conf nor .*conf has a config\.yaml"):
        _paths.config_dir()
