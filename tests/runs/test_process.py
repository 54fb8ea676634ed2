"""A command in a process of its own: what it prints, how it ends, and that it can be stopped."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import certtrain
from certtrain.errors import ConfigError
from certtrain.runs.own import literal, own_target
from certtrain.runs.process import Ended, run_process
from certtrain.runs.training import _concluded

STUBBORN = """
import signal, sys, time

asked = 0


def stop(number, frame):
    global asked
    asked += 1
    print("asked", asked, flush=True)
    if asked == 2:
        sys.exit(130)


signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


def python(code, tell):
    return run_process([sys.executable, "-c", code], os.environ, tell)


def test_lines_are_passed_on_and_the_error_is_kept():
    lines = []
    code = "import sys; print('größe'); print('certtrain: error: no', file=sys.stderr); sys.exit(2)"
    assert python(code, lines.append) == Ended(2, "no", False)
    assert lines == ["größe\n"]


@pytest.fixture
def interruptible():
    """As in a terminal: a shell that starts pytest in the background has it ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupts_are_passed_on_one_by_one():
    """As a notebook's stop button does it: once for an end in order, twice for an end at once."""
    lines = []

    def tell(line):
        lines.append(line)
        if line != "asked 2\n":
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    started = time.monotonic()
    assert python(STUBBORN, tell) == Ended(130, "", True)
    assert lines == ["ready\n", "asked 1\n", "asked 2\n"]
    assert time.monotonic() - started < 60


def test_no_process_is_left_when_its_follower_fails():
    def fail(line):
        raise OSError(line)

    with pytest.raises(OSError, match=r"\d+"):
        python("import os, time; print(os.getpid(), flush=True); time.sleep(1000)", fail)


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        (Ended(2, "eps must be less", False), "^eps must be less$"),
        (Ended(-9, "", False), r"ended by SIGKILL \(out of memory\?\); the same call goes on"),
        (Ended(75, "", False), "was stopped by a signal before its end; the same call goes on"),
        (Ended(0, "", False), "was stopped by a signal before its end"),
        (Ended(1, "", False), "the run failed: its output says why"),
    ],
)
def test_how_a_process_ended_is_told_in_one_line(ended: Ended, message: str):
    with pytest.raises(certtrain.RunFailed, match=message) as caught:
        _concluded(ended, None)
    assert (caught.value.directory, caught.value.exit_code) == (None, ended.code)
    with pytest.raises(KeyboardInterrupt):
        _concluded(Ended(0, "", True), None)


def test_a_failed_run_says_where_it_is(tmp_path: Path):
    (tmp_path / "traceback.txt").write_text("rank 0\nTraceback (most recent call last):\nZeroDivisionError: by zero\n")
    with pytest.raises(certtrain.RunFailed, match=r"the run failed: ZeroDivisionError: by zero; see .*traceback.txt"):
        _concluded(Ended(1, "", False), tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (0.1, "0.1"),
        ("it's", "'it\\'s'"),
        ([1, (2.0, "a")], "[1,[2.0,'a']]"),
        ({"a": {"b": False}}, "{'a':{'b':false}}"),
    ],
)
def test_arguments_are_written_as_overrides_have_them(value: object, text: str):
    assert literal(value, "model") == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"x"])
def test_what_no_configuration_holds_is_refused(value: object):
    with pytest.raises(ConfigError, match="a configuration holds numbers, words, lists"):
        literal(value, "model")


def test_a_loss_is_made_again_from_its_fields():
    from certtrain.losses import Adversary, Sabr

    given = own_target("loss", Sabr(subselection_ratio=0.25, attack=Adversary(steps=3)))
    assert given.overrides[0].endswith("Sabr")
    assert "loss.subselection_ratio=0.25" in given.overrides
    assert any("'steps':3" in word and "Adversary" in word for word in given.overrides)
    assert given.folders == ()
