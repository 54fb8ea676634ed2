"""`certtrain.train`, interrupted as a notebook's stop button does it, and called again."""

import io
import os
import re
import signal
from contextlib import redirect_stdout

import pytest

import certtrain

LONG = ["method=grad", "relaxation=ibp", "trainer.max_epochs=150", "certify.enabled=false"]


class StopsAt(io.StringIO):
    """Standard output that interrupts who first writes what matches a pattern."""

    def __init__(self, pattern):
        super().__init__()
        self.pattern = pattern

    def write(self, text):
        if self.pattern and re.search(self.pattern, text):
            self.pattern = ""
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)


@pytest.mark.slow
def test_a_run_that_is_interrupted_goes_on_and_a_finished_one_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stopped = StopsAt(r"step \d+/")
    with redirect_stdout(stopped), pytest.raises(KeyboardInterrupt):
        certtrain.train(LONG)
    (begun,) = certtrain.runs().index
    assert certtrain.Run.load(begun).state == "interrupted"
    with redirect_stdout(io.StringIO()) as printed:
        run = certtrain.train(LONG)
    assert "goes on from step" in printed.getvalue()
    assert (str(run.directory), run.state) == (begun, "finished")
    assert run.metrics.epoch.max() == 149
    with redirect_stdout(io.StringIO()) as printed:
        again = certtrain.train([*LONG, f"resume={run.directory}"])
    assert "has finished" in printed.getvalue()
    assert again.directory == run.directory
