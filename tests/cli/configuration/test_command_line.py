"""What may be typed: flags, commands, folders of own choices, words that a shell completes."""

import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from certtrain import __main__ as program
from certtrain import __version__
from certtrain.cli.configuration.compose import compose_jobs, with_configured_sweep
from certtrain.cli.job.preflight import preflight
from certtrain.cli.rundir.recorded import parse_command
from certtrain.errors import ConfigError
from certtrain.sweep.launcher import subdirectory, typed_overrides


def ran(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """Exit code and standard output of a command that needs no process of its own."""
    monkeypatch.setattr("sys.argv", ["certtrain", *arguments])
    printed = io.StringIO()
    with redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error")  # Hydra has some to say about launchers that are not its own
        return program.main(), printed.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--multirn"], "unknown option --multirn; did you mean --multirun?"),
        (["--frobnicate"], "unknown option --frobnicate; see python -m certtrain --help"),
        (["--cfg", "jobs"], "invalid choice: 'jobs'"),
        (["--cfg", "job", "-m"], "--multirun and --cfg exclude each other"),
        (["--resolve"], "--resolve and --package belong to --cfg"),
        (["verify", "x.pth"], "'verify' is no key=value and no command; did you mean certify?"),
        (
            ["gallery", "x"],
            "'gallery' is no key=value and no command; commands are analyze, certify,",
        ),
        (["train", "eps=0.1"], "training needs none, as in python -m certtrain method=grad"),
        (["eps", "0.1"], "'eps' is no key=value: write eps=VALUE"),
        (["certify"], "certify: the following arguments are required: target; see python -m certtrain certify --help"),
        (["model=mynet.MyNet"], "; a network of yours is model._target_=mynet.MyNet"),
        (["data=pictures"], "; data of yours are data=folder data.path=FOLDER or"),
        (["experiment=foo"], "names that python -m certtrain --help lists"),
        (["colect", "x"], "'colect' is no key=value and no command; did you mean collect?"),
        (["eps=0.1", "study"], "study is a command: it must be the first word"),
        (["--config-name=other"], "use --config-dir"),
        (["--config-dir=no/such"], "no/such is no folder"),
        (["eps=\udcff"], "is no UTF-8 text"),
        (
            ["collect"],
            "collect: the following arguments are required: directory; see python -m certtrain collect --help",
        ),
        (
            ["study", "a.yaml", "--outptu", "x"],
            "study: unrecognized arguments: --outptu x; see python -m certtrain study --help",
        ),
    ],
)
def test_a_word_that_is_none_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, printed = ran(monkeypatch, *arguments)
    assert (code, printed) == (2, "")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("certtrain: error: ")
    assert message in line


def test_flags_may_stand_anywhere() -> None:
    for line in (["-m", "seed=1,2", "eps=0.1"], ["seed=1,2", "-m", "eps=0.1"], ["seed=1,2", "eps=0.1", "--multirun"]):
        command = parse_command(line)
        assert (command.overrides, command.multirun) == (("seed=1,2", "eps=0.1"), True)


def test_the_version_is_that_of_certtrain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(monkeypatch, "--version") == (0, f"certtrain {__version__}\n")


def test_what_is_composed_is_shown_without_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed = ran(monkeypatch, "--info", "defaults", "relaxation=ibp")
    assert code == 0
    code, printed = ran(monkeypatch, "--cfg", "job", "relaxation=ibp", "--package", "relaxation")
    assert (code, printed) == (0, "# @package relaxation\nname: ibp\nbackend: native\n")


@pytest.mark.parametrize("flags", [("--cfg", "job"), ("--info", "defaults")])
def test_what_cannot_be_composed_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: tuple[str, str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_bytes(b"eps: \xff\n")
    for arguments, message in (
        (["logger=null"], "'logger=null': a group is given a choice: logger=csv|local|tensorboard|wandb"),
        (["pgpe=null"], "'pgpe=null': set its keys, as in pgpe.key=value"),
        (["logger=wandb,csv"], "'logger=wandb,csv': several at once are a list: logger=[wandb,csv]"),
        (
            ["logger=[csb]"],
            "unknown logger 'csb': possible are csv, local, tensorboard, wandb",
        ),
        (["logger.wandb.project=x"], "unknown key 'logger.wandb.project' here: it needs logger=wandb"),
        (["seed=0,1"], "'seed=0,1' has several values: add -m to run each"),
        ([f"--config-dir={tmp_path}", "data=mine"], f"{tmp_path}/data/mine.yaml is not UTF-8: invalid start byte"),
    ):
        assert ran(monkeypatch, *flags, *arguments) == (2, "")
        assert capsys.readouterr().err == f"certtrain: error: {message}\n"


@pytest.mark.parametrize("asked", [["query=nope"], ["install=nope"], ["install=bash", "query=zsh"], ["eps=3"]])
def test_completion_is_asked_of_known_shells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    assert ran(monkeypatch, "-sc", *asked) == (2, "")
    assert capsys.readouterr().err.startswith("certtrain: error: --shell-completion takes one of install, ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("certtrain ", {"analyze", "collect", "export", "landscape", "study", "relaxation=", "eps="}),
        ("certtrain col", {"collect"}),
        ("certtrain relaxation=i", {"relaxation=ibp", "relaxation=intersection"}),
        ("python -m certtrain relaxation=i", {"relaxation=ibp", "relaxation=intersection"}),
        ("certtrain --mul", {"--multirun"}),
        ("certtrain show relaxation=i", {"relaxation=ibp", "relaxation=intersection"}),
        ("certtrain sho", {"show"}),
        ("certtrain eps=0.1 col", set()),
        ("certtrain collect ", set()),
    ],
)
def test_a_shell_completes_commands_too(monkeypatch: pytest.MonkeyPatch, line: str, words: set[str]) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    code, printed = ran(monkeypatch, "-sc", "query=bash")
    assert code == 0
    assert words <= set(printed.split())
    if words != {"analyze", "collect", "export", "landscape", "study", "relaxation=", "eps="}:
        assert words == set(printed.split())


@pytest.mark.parametrize("name", ["größe", "a=b", "(x)", "a,b", "it's", 'say "x"', "$HOME", "${now:x} [1]"])
def test_a_folder_of_own_choices_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "mine.yaml").write_text("defaults: [digits]\nbatch_size: 7\n", encoding="utf-8")
    (job,) = compose_jobs(with_configured_sweep(parse_command([f"--config-dir={folder}", "data=mine"])))
    assert job.data.batch_size == 7
    with pytest.raises(ConfigError, match="unknown data 'mein': possible are .*, mine, "):
        preflight(parse_command(["--config-dir", str(folder), "data=mein"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"eps: 0.1\xff\n", "mine.yaml is not UTF-8"),
        (b"eps: [1\n", "mine.yaml"),
        (b"- 1\n", "unknown key 'experiment': .* begins with the line"),
    ],
)
def test_a_file_of_own_choices_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        preflight(parse_command([f"--config-dir={tmp_path}", "experiment=mine"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("${hydra.job.override_dirname}", ["eps=0.1,seed=1", "eps=0.1,seed=2"]),
        ("${hydra.job.num}_${seed}", ["0_1", "1_2"]),
        ('"${hydra:job.num}-größe"', ["0-größe", "1-größe"]),
        ("s${seed}", ["s1", "s2"]),
    ],
)
def test_directories_of_jobs_by_a_pattern(pattern: str, names: list[str]) -> None:
    command = parse_command(["-m", "eps=0.1", "seed=1,2", f"hydra.sweep.subdir={pattern}"])
    jobs = list(compose_jobs(command))
    assert [subdirectory(job, number) for number, job in enumerate(jobs)] == names
    assert typed_overrides(jobs[0], "hydra") == [f"hydra.sweep.subdir={pattern}"]
    preflight(command)


def test_jobs_that_would_share_a_directory_are_refused() -> None:
    with pytest.raises(ConfigError, match="jobs 0 and 1 would share the directory all"):
        preflight(parse_command(["-m", "seed=1,2", "hydra.sweep.subdir=all"]))
