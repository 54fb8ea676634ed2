"""A certification in which something failed is written down completely, and not called a success."""

import json
from pathlib import Path

import pytest

from certtrain.bounds import Box
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import plain
from certtrain.cli.job.entry import run_in
from certtrain.cli.job.launch import _tell_failures
from certtrain.report import CertificationFailed
from certtrain.sweep.jobs import Job

QUICK = (
    "method=grad",
    "relaxation=ibp",
    "eps=1e-6",
    "trainer.max_steps=50",
    "certify.limit=6",
    "certify.attack.steps=1",
    "certify.verifiers=[ibp,deeppoly]",
)


def test_a_verifier_that_fails_is_counted_and_told_although_another_proved_every_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = DeepPoly.bound

    def fail(self, graph, params, box: Box, spec=None, sides="both"):
        if not box.lower.equal(box.upper):
            raise ValueError("boom\nat length")
        return bound(self, graph, params, box, spec, sides)

    monkeypatch.setattr(DeepPoly, "bound", fail)
    (composed,) = compose_jobs(Command(QUICK, False, False))
    with pytest.raises(CertificationFailed) as failure:
        run_in(tmp_path, plain(composed))
    record = json.loads((tmp_path / "summary.json").read_text())
    right = record["statuses"]["verified"]
    assert right >= 4
    assert record["statuses"]["verified"] + record["statuses"]["misclassified"] == 6
    assert record["certified_accuracy_by"] == {"ibp": right / 6, "deeppoly": None}
    assert record["verifiers"]["deeppoly"]["failed"] == right
    told = f"deeppoly failed on {right} of 6 images (ValueError: boom)"
    assert str(failure.value) == f"the certification is incomplete: {told}"
    assert f"deeppoly failed on {right} images (error: ValueError: boom)" in capsys.readouterr().out
    assert f"deeppoly failed on {right} images" in (tmp_path / "report.html").read_text()

    # The same command, and the sweep that it is a job of, say so again.
    with pytest.raises(CertificationFailed, match="deeppoly failed"):
        _tell_failures(tmp_path)
    assert not Job(0, (), tmp_path, (), tmp_path).is_finished
    record["failures"][0]["kind"] = "timeout"
    (tmp_path / "summary.json").write_text(json.dumps(record))
    assert Job(0, (), tmp_path, (), tmp_path).is_finished, "a limit that was asked for is no failure"
    _tell_failures(tmp_path)
