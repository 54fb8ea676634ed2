"""What a run leaves for people: a table in the terminal, summary.json, plots, and one HTML page.

`terminal` prints and shows progress; `summary` writes the numbers; `metrics` reads the training record and
`curves` draws it; `margins` draws what the verifiers proved; `page` puts everything into report.html. `collect`
groups many runs (`collect_read` finds them, `collect_keys` tells what differs), `collected`, `collected_text` and
`collected_figure` show them. Every result names the relaxation that trained and
the verifiers that certified.
"""

from certtrain.report.curves import write_curves
from certtrain.report.margins import write_margins
from certtrain.report.page.run import write_report
from certtrain.report.summary import CertificationFailed, accuracies_of, check_failures, read_summary, write_summary
from certtrain.report.terminal import certification_progress, print_verdict, verdict_table

__all__ = [
    "CertificationFailed",
    "accuracies_of",
    "certification_progress",
    "check_failures",
    "print_verdict",
    "read_summary",
    "verdict_table",
    "write_curves",
    "write_margins",
    "write_report",
    "write_summary",
]
