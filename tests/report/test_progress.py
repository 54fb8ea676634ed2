"""How far a certification is: a bar in a terminal, a few plain lines in a log."""

import re

from report.fakes import console

from certtrain.report import certification_progress


def test_progress_in_a_log_is_a_few_plain_lines():
    out = console()
    with certification_progress(out, 1000) as progress:
        for done in range(0, 1001, 5):
            progress(done, 1000, {"verified": done // 2, "falsified": 0})
    lines = out.file.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0] == "judged 0 of 1,000 images"
    assert lines[-1] == "judged 1,000 of 1,000 images: 500 verified"


def test_progress_without_images():
    out = console()
    with certification_progress(out, 0) as progress:
        progress(0, 0, {})
    assert out.file.getvalue() == "judged 0 of 0 images\n"


def test_progress_in_a_terminal_is_a_bar():
    out = console(terminal=True)
    with certification_progress(out, 4) as progress:
        progress(4, 4, {"verified": 3, "oom": 1})
    text = out.file.getvalue()
    assert "4/4" in text
    assert "verified" in text


def test_the_bar_is_one_line_of_the_terminal():
    counts = {"misclassified": 1234, "falsified": 1234, "verified": 7000, "unknown": 532}
    for width, last in ((100, "7,000 verified"), (80, "1,234 falsified"), (60, "0:00:00")):
        out = console(terminal=True, width=width)
        with certification_progress(out, 10_000) as progress:
            progress(10_000, 10_000, counts)
        lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.file.getvalue()))
        assert max(map(len, lines)) <= width
        assert any("10000/10000" in line and line.rstrip().endswith(last) for line in lines)
