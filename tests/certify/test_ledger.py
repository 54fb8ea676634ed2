"""The ledger: restarts skip what is finished, and nothing is mixed or silently lost."""

import json
from pathlib import Path

import pytest
import torch
from certify.fakes import QUICK, Scripted, diagonal
from torch import Tensor

from certtrain.bounds import Box
from certtrain.certify import Attack, Verdict, certify, read_counterexample, read_ledger, read_verifiers
from certtrain.certify.case import image_digest
from certtrain.certify.ledger import merge_ledger
from certtrain.errors import ConfigError, DataError

INPUTS = torch.tensor([[0.9, 0.1], [0.6, 0.5], [0.2, 0.8], [0.8, 0.2], [0.7, 0.1]])
STATUSES = ["verified", "falsified", "misclassified", "verified", "verified"]
CONTRACT = ["index", "label", "predicted", "status", "verified_by", "margin", "seconds", "margins", "message"]
LATER = ["falsified_by", "counterexample", "remarks", "stages", "cascade"]
COLUMNS = [*CONTRACT, "image", "failures", "eps", *LATER]


class Interrupted(Exception):
    pass


def run(path: Path, images: int = 5, eps: float = 0.1, **options) -> list[Verdict]:
    labels = torch.zeros(images, dtype=torch.int64)
    given = {"relaxations": ("ibp", "deeppoly"), "attack": QUICK, "batch_size": 2} | options
    return certify(diagonal(), INPUTS[:images], labels, eps, ledger=path, **given)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "ledger.jsonl"


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_row_per_image_with_the_agreed_columns(path: Path):
    verdicts = run(path)
    assert [v.status for v in verdicts] == STATUSES
    assert [row["index"] for row in rows(path)] == [0, 1, 2, 3, 4]
    assert all(list(row) == COLUMNS for row in rows(path))
    assert read_ledger(path) == verdicts


def test_a_restart_skips_finished_images(path: Path):
    def interrupt(done: int, total: int, counts: object) -> None:
        if done == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(path, progress=interrupt)
    before, asked = path.read_text(), []

    def spy(done: int, total: int, counts: object) -> None:
        asked.append((done, total))

    assert [v.status for v in run(path, progress=spy)] == STATUSES
    assert asked == [(4, 5), (5, 5)]
    assert path.read_text().startswith(before)
    assert [row["index"] for row in rows(path)] == [0, 1, 2, 3, 4]
    assert run(path) == read_ledger(path), "nothing left to do"


def test_finished_images_are_not_computed_again(path: Path):
    seen: list[int] = []

    def script(box: Box) -> Tensor:
        seen.append(len(box))
        return torch.full((len(box),), -1.0)

    given = {"relaxations": (("spy", Scripted(script)),), "batch_size": 5}
    run(path, images=3, **given)
    seen.clear()
    # Another object of the same kind: what a restarted process has.
    verdicts = run(path, images=5, **given)
    assert seen == [2]
    assert len(verdicts) == 5


def test_a_torn_last_line_is_dropped_and_made_again(path: Path):
    run(path, images=4)
    whole = path.read_text()
    path.write_text(whole[:-30])
    assert len(read_ledger(path)) == 3
    assert [v.status for v in run(path)] == STATUSES
    assert [row["index"] for row in rows(path)] == [0, 1, 2, 3, 4]


def test_damage_elsewhere_is_told(path: Path):
    run(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{}", *lines[2:]]) + "\n")
    with pytest.raises(DataError, match=r"ledger.jsonl line 2 is no verdict"):
        run(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 0.2}, r"eps 0\.1 there, 0\.2 here"),
        ({"relaxations": ("ibp",)}, "verifiers"),
        ({"attack": Attack(steps=7)}, "attack"),
        ({"clip": None}, "clip"),
        ({"timeout_s": 5.0}, "timeout_s null there, 5.0 here"),
    ],
)
def test_other_settings_are_refused(path: Path, change: dict, message: str):
    run(path, images=2)
    before = path.read_text()
    with pytest.raises(ConfigError, match=message) as refusal:
        run(path, **change)
    assert "\n" not in str(refusal.value)
    assert path.read_text() == before


def test_other_weights_are_refused(path: Path):
    run(path, images=2)
    model = diagonal()
    model[0].bias.data[0] = 1e-3
    with pytest.raises(ConfigError, match="network"):
        certify(
            model,
            INPUTS,
            torch.zeros(5, dtype=torch.int64),
            0.1,
            ledger=path,
            relaxations=("ibp", "deeppoly"),
            attack=QUICK,
        )


def test_verdicts_of_unknown_settings_are_refused(path: Path):
    run(path, images=2)
    path.with_name("ledger.meta.json").unlink()
    with pytest.raises(ConfigError, match=r"ledger\.meta\.json beside it cannot be read"):
        run(path)


def test_an_empty_ledger_takes_new_settings(path: Path):
    run(path, images=2)
    path.write_text("")
    assert [v.status for v in run(path, eps=0.01)] == [
        "verified",
        "verified",
        "misclassified",
        "verified",
        "verified",
    ]


def test_other_labels_are_other_data(path: Path):
    run(path, images=2)
    with pytest.raises(ConfigError, match="image 0 has label 0, the data says 1"):
        certify(
            diagonal(),
            INPUTS,
            torch.ones(5, dtype=torch.int64),
            0.1,
            ledger=path,
            relaxations=("ibp", "deeppoly"),
            attack=QUICK,
        )


def again(path: Path, inputs: Tensor) -> list[Verdict]:
    """What `run` certifies, with other images under the same numbers and labels."""
    labels = torch.zeros(len(inputs), dtype=torch.int64)
    return certify(
        diagonal(), inputs, labels, 0.1, ledger=path, relaxations=("ibp", "deeppoly"), attack=QUICK, batch_size=2
    )


def test_another_image_with_the_same_number_and_label_is_refused(path: Path):
    run(path, images=2)
    before, others = path.read_text(), INPUTS.clone()
    others[1, 0] += 1e-6
    with pytest.raises(ConfigError, match="verdict on image 1 is about another image") as refusal:
        again(path, others)
    assert "\n" not in str(refusal.value)
    assert path.read_text() == before
    assert [v.status for v in again(path, INPUTS.double())] == STATUSES, "the same pixels in another precision"


def test_digests_tell_pixels_and_shapes_apart():
    image = torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(0))
    digest = image_digest(image)
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert image_digest(image.double()) == image_digest(image.clone().requires_grad_()) == digest
    assert len({digest, *(image_digest(other) for other in (image.reshape(2, 3), image.mT, image + 1e-6))}) == 4


def test_rows_that_do_not_say_which_image_they_are_about_are_refused(path: Path):
    run(path, images=2)
    old = [{name: row[name] for name in CONTRACT} for row in rows(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    for read in (read_ledger, run):
        with pytest.raises(DataError, match=r"ledger.jsonl line 1 has no column 'image'") as refusal:
            read(path)
        assert "\n" not in str(refusal.value)


def test_the_ledger_knows_its_verifiers(path: Path):
    assert read_verifiers(path) is None
    run(path, images=2)
    assert read_verifiers(path) == ["ibp", "deeppoly"]
    for damaged in ("{", "[]", "{}", '{"verifiers": 3}', '{"verifiers": [3]}'):
        path.with_name("ledger.meta.json").write_text(damaged)
        assert read_verifiers(path) is None


def test_numbers_that_are_not_finite_never_reach_the_file(path: Path):
    nan = Scripted(lambda box: torch.full((len(box),), torch.nan))
    run(path, relaxations=(("nan", nan),))
    assert "NaN" not in path.read_text()
    assert [v.status for v in read_ledger(path)] == [
        "error",
        "falsified",
        "misclassified",
        "error",
        "error",
    ]


def test_a_ledger_that_does_not_exist_has_no_verdicts(tmp_path: Path):
    assert read_ledger(tmp_path / "ledger.jsonl") == []


def test_of_two_rows_about_an_image_the_last_one_counts(path: Path):
    verdicts = run(path)
    first, *rest = path.read_text().splitlines()
    later = {**json.loads(first), "seconds": 7.5}
    path.write_text("\n".join([first, *rest, json.dumps(later)]) + "\n")
    read = read_ledger(path)
    assert [v.index for v in read] == [0, 1, 2, 3, 4]
    assert read[0].seconds == 7.5
    assert read[1:] == verdicts[1:]
    assert [v.index for v in run(path)] == [0, 1, 2, 3, 4]


def test_shards_are_merged_into_one_ledger_that_goes_on_as_such(path: Path, tmp_path: Path):
    for rank in (1, 0):
        run(path, shard=(rank, 2))
    merged = tmp_path / "out" / "merged.jsonl"
    assert merge_ledger(path, merged) == 5
    assert [row["index"] for row in rows(merged)] == [0, 1, 2, 3, 4]
    assert [verdict.status for verdict in read_ledger(merged)] == STATUSES
    point = read_counterexample(merged, read_ledger(merged)[1])
    assert torch.equal(point, read_counterexample(path, next(v for v in read_ledger(path) if v.index == 1)))
    before = merged.read_text()
    assert [verdict.status for verdict in run(merged)] == STATUSES  # nothing is judged again
    assert merged.read_text() == before
    assert read_verifiers(merged) == ["ibp", "deeppoly"]


def test_without_verdicts_and_into_itself_nothing_is_merged(path: Path, tmp_path: Path):
    assert merge_ledger(path, tmp_path / "merged.jsonl") == 0
    run(path)
    before = path.read_bytes()
    assert merge_ledger(path, path.parent / "." / path.name) == 0
    assert path.read_bytes() == before
    assert not (tmp_path / "merged.jsonl").exists()
