"""Data sets of scores, their splits, and what counting foretells of them."""

import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from musicgen_ext import Score, encodings, melodies
from musicgen_ext.architectures import RecurrentConfig
from musicgen_ext.errors import MidiWarning
from musicgen_ext.evaluate.counting import CountingModel, counting_nats
from musicgen_ext.midi import Track
from musicgen_ext.train import datasets
from musicgen_ext.train.augmentation import Augmentation
from musicgen_ext.train.data import Collator, Piece
from musicgen_ext.train.midi import cut, midi
from musicgen_ext.train.splits import near_duplicates, split

SHARED = Path(__file__).parents[2] / "shared" / "data"


def tune(rng, notes=60, quarter=480):
    """A melody of its own."""
    pitches = 60 + np.cumsum(rng.integers(-4, 5, notes)) % 24
    return Score([(i * quarter, quarter, int(p)) for i, p in enumerate(pitches)], ticks_per_quarter=quarter)


def faster_and_higher(score, semitones=5):
    """The same tune in another key, at another tempo and resolution, with a bass and drums below it."""
    rows = [(n["start"] // 2, n["duration"] // 2, n["pitch"] + semitones, 90, 0) for n in score.notes]
    rows += [(i * 960, 960, 36, 70, 1) for i in range(30)]
    return Score(rows, ticks_per_quarter=480)


@pytest.fixture
def folder(tmp_path, rng):
    """Ten tunes, the last of which is the first in another shape, one file that is broken and one that has no notes."""
    scores = [tune(rng) for _ in range(9)]
    for i, score in enumerate([*scores, faster_and_higher(scores[0])]):
        where = tmp_path / ("jigs" if i % 2 else "reels")
        where.mkdir(exist_ok=True)
        score.save(where / f"{i}.mid")
    (tmp_path / "reels" / "broken.mid").write_bytes(b"MThd")
    Score([]).save(tmp_path / "empty.mid")
    (tmp_path / ".hidden.mid").write_bytes(b"MThd")
    return tmp_path


def everything(scores):
    return [*scores.train, *scores.valid, *scores.test]


def test_a_folder_is_read_and_bad_files_are_reported(folder):
    scores = datasets.midi_folder(folder, labels="folder", valid_share=0.2, test_share=0.2)
    assert len(everything(scores)) == 10
    assert scores.labels == ["jigs", "reels"]
    assert [name for name, _ in scores.failures] == ["empty.mid", "reels/broken.mid"]
    assert "too short" in scores.failures[1][1]
    again = datasets.midi_folder(folder, labels="folder", valid_share=0.2, test_share=0.2)
    assert [i.name for i in everything(again)] == [i.name for i in everything(scores)]


def test_pieces_that_resemble_each_other_stay_together(folder):
    for seed in range(20):
        scores = datasets.midi_folder(folder, valid_share=0.3, test_share=0.3, seed=seed)
        parts = {item.name: part for part in datasets.SPLITS for item in getattr(scores, part)}
        groups = {item.name: item.group for item in everything(scores)}
        assert parts["reels/0.mid"] == parts["jigs/9.mid"]
        assert groups["reels/0.mid"] == groups["jigs/9.mid"]
        assert len(set(groups.values())) == 9
        assert {len(scores.valid), len(scores.test)} <= {2, 3}


def test_an_archive_is_a_folder(folder, tmp_path):
    path = tmp_path / "tunes.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.mid")):
            archive.write(file, file.relative_to(folder).as_posix())
    of_folder, of_archive = datasets.midi_folder(folder), datasets.midi_folder(path)
    assert [(i.name, i.group) for i in everything(of_archive)] == [(i.name, i.group) for i in everything(of_folder)]
    assert all(a.score == b.score for a, b in zip(everything(of_archive), everything(of_folder), strict=True))


def test_a_folder_may_be_split_already(tmp_path, rng):
    tunes = [tune(rng) for _ in range(4)]
    for name, score in zip(("train/a/1", "train/b/2", "valid/a/3", "test/4"), tunes, strict=True):
        path = tmp_path / f"{name}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        score.save(path)
    scores = datasets.midi_folder(tmp_path, labels="folder")
    assert [[i.name for i in getattr(scores, part)] for part in datasets.SPLITS] == [
        ["train/a/1.mid", "train/b/2.mid"], ["valid/a/3.mid"], ["test/4.mid"],
    ]  # fmt: skip
    assert [i.label for i in scores.train] == ["a", "b"]


def test_what_a_folder_must_have(tmp_path, rng):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        datasets.midi_folder(tmp_path / "nowhere")
    (tmp_path / "bad.mid").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"expected at least 2 .* got 0 .*bad\.mid: "):
        datasets.midi_folder(tmp_path)
    one = tune(rng)
    for i in range(3):
        faster_and_higher(one, i).save(tmp_path / f"{i}.mid")
    with pytest.raises(ValueError, match=r"got 3 in 1 group"):
        datasets.midi_folder(tmp_path)
    with pytest.raises(ValueError, match=r"labels: .*'book'"):
        datasets.midi_folder(tmp_path, labels="book")
    with pytest.raises(ValueError, match=r"bad\.mid: expected a folder"):
        datasets.midi_folder(tmp_path / "bad.mid")
    with pytest.raises(ValueError, match=r"collection: expected one of .* got 'essen'"):
        datasets.collection("essen", tmp_path)


def test_variants_are_found_among_strangers(rng):
    strangers = [tune(rng) for _ in range(30)]
    family = [faster_and_higher(strangers[3], s) for s in range(25)]  # more than a piece is compared with
    groups = near_duplicates([*strangers, *family])
    assert len(set(groups[:30].tolist())) == 30
    assert set(groups[30:].tolist()) == {groups[3]}
    assert near_duplicates([]).tolist() == []


def test_half_a_tune_is_a_variant_of_it(rng):
    whole = tune(rng)
    half = Score(whole.notes[10:40])
    other = Score(np.concatenate([whole.notes[:14], tune(rng).notes[14:]]))  # 7 of its 53 windows
    assert near_duplicates([whole, half, other]).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=r"similarity: .*got 0"):
        near_duplicates([whole], 0)


def test_split_shares(rng):
    names = [f"{i}.mid" for i in range(200)]
    where = split(names, np.arange(200), valid_share=0.1, test_share=0.15, seed=3)
    assert [where.count(part) for part in datasets.SPLITS] == [150, 20, 30]
    assert where != split(names, np.arange(200), valid_share=0.1, test_share=0.15, seed=4)
    two = split(["a", "b", "c"], np.array([0, 1, 1]))
    assert two == ["valid", "train", "train"]
    with pytest.raises(ValueError, match="less than 1 together"):
        split(names, np.arange(200), valid_share=0.5, test_share=0.5)


def test_windows_of_melodies():
    score = Score(
        [(0, 10, 60, 80, 0), (0, 10, 64, 80, 0), (10, 10, 62, 80, 0), (20, 10, 67, 80, 0), (0, 40, 48, 80, 1)]
    )
    assert melodies.melody(score).tolist() == [64, 62, 67]
    assert [line.tolist() for line in melodies.lines(score)] == [[64, 62, 67], [48]]
    line = np.array([60, 62, 64, 65, 67])
    assert (melodies.windows(line, 3, transposed=True) == melodies.windows(line + 5, 3, transposed=True)).all()
    assert not np.isin(
        melodies.windows(line, 3, transposed=False), melodies.windows(line + 5, 3, transposed=False)
    ).any()
    assert len(np.unique(melodies.windows(line, 3, transposed=False))) == 3
    assert len(melodies.windows(line, 6, transposed=True)) == 0


@pytest.mark.parametrize("name", sorted(datasets.COLLECTIONS))
def test_collections(name):
    path = SHARED / {"bach_chorales": "bach_chorales_m21"}.get(name, name)
    if not path.exists():
        pytest.skip(f"no {path}")
    if name == "folk_melodies":
        pytest.skip("3000 tunes take too long here")
    scores = datasets.collection(name, path)
    assert len(scores.train) > 100
    assert min(len(scores.valid), len(scores.test)) > 10
    groups = [{item.group for item in getattr(scores, part)} for part in datasets.SPLITS]
    assert not any(a & b for a, b in itertools.combinations(groups, 2))


# -- counting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 1, 3])
def test_counted_probabilities_sum_to_one(rng, order):
    pieces = [rng.integers(0, 3, (20, 2)) for _ in range(3)]
    model = CountingModel(pieces, (3, 4), order)
    begun = rng.integers(0, 3, (5, 2))
    last = [np.concatenate([begun, [[1, token]]]) for token in range(4)]
    assert np.exp([model.log_probs([grid])[-1] for grid in last]).sum() == pytest.approx(1, abs=1e-12)
    first = [np.array([[token, 0]]) for token in range(3)]
    assert np.exp([model.log_probs([grid])[0] for grid in first]).sum() == pytest.approx(1, abs=1e-12)


def test_counting_is_witten_bell():
    """c(0) = c(1) = 2 of two different tokens; after the start 0, once; after 0 always 1, twice."""
    model = CountingModel([np.array([0, 1, 0, 1])], 2, 1)
    p0 = [(2 + 2 * 0.5) / (4 + 2)] * 2
    p_first = (1 + 1 * p0[0]) / (1 + 1)
    p_1_after_0 = (2 + 1 * p0[1]) / (2 + 1)
    expected = np.log([p_first, p_1_after_0])
    np.testing.assert_allclose(model.log_probs([np.array([0, 1])]), expected, rtol=1e-12)
    np.testing.assert_allclose(model.log_probs([np.array([0, 1])], 0), np.log(p0), rtol=1e-12)


def test_counting_chooses_the_order_that_validation_likes(rng):
    def walk(n):  # the next token depends on the last two
        tokens = [0, 1]
        for u in rng.random(n):
            tokens.append(int((tokens[-1] + 2 * tokens[-2] + (u > 0.9)) % 5))
        return np.array(tokens)

    train, valid, test = ([walk(400) for _ in range(k)] for k in (10, 2, 2))
    nats, tokens = counting_nats(train, test, 5, valid=valid)
    assert tokens == sum(map(len, test))
    models = {order: CountingModel(train, 5, order) for order in range(7)}
    best = max(models, key=lambda order: models[order].log_probs(valid).sum())
    assert best >= 2
    assert nats == pytest.approx(-models[best].log_probs(test).sum(), rel=1e-12)
    assert nats / tokens < 0.6 < np.log(5) - 0.9
    assert nats <= counting_nats(train, test, 5, orders=[0, 1])[0]


def test_counting_refuses_what_is_no_token():
    with pytest.raises(ValueError, match=r"pieces\[0\]: expected tokens in 0\.\.3, got 4 at 1"):
        CountingModel([np.array([0, 4])], 4, 1)
    with pytest.raises(ValueError, match=r"pieces\[0\]: expected shape \(n, 2\), got \(2,\)"):
        CountingModel([np.array([0, 4])], (4, 4), 1)
    with pytest.raises(TypeError, match="integers"):
        CountingModel([np.array([0.5])], 4, 1)
    with pytest.raises(ValueError, match="order"):
        CountingModel([], 4, -1)


# -- augmentation ----------------------------------------------------------------------------------------------------


@pytest.fixture
def band(rng):
    """A melody, a bass and drums."""
    rows = [(i * 240, 240, int(p), 60 + i % 60, 0) for i, p in enumerate(rng.integers(60, 80, 40))]
    rows += [(i * 480, 480, int(p), 90, 1) for i, p in enumerate(rng.integers(30, 45, 20))]
    rows += [(i * 480, 120, 36, 100, 2) for i in range(20)]
    return Score(rows, tracks=[Track("melody"), Track("bass"), Track("drums", is_drum=True)], tempos=[(0, 500_000)])


def test_augmentation_is_seeded_and_leaves_the_score_alone(band):
    change, before = Augmentation(5, 0.2, 20, 0.3), band.to_bytes()
    once = [change(band, np.random.default_rng(seed)) for seed in range(20)]
    again = [change(band, np.random.default_rng(seed)) for seed in range(20)]
    assert [s.to_bytes() for s in once] == [s.to_bytes() for s in again]
    assert len({s.to_bytes() for s in once}) == 20
    assert band.to_bytes() == before
    assert Augmentation()(band, np.random.default_rng(0)) == band


def test_augmentation_changes_what_it_says(band):
    drawn = [Augmentation(transpose=5)(band, np.random.default_rng(s)) for s in range(60)]
    shifts = {tuple(np.unique(d.notes["pitch"].astype(int) - band.notes["pitch"])) for d in drawn}
    assert shifts == {tuple(sorted({0, s})) for s in range(-5, 6)}  # drums stay
    tempos = [Augmentation(stretch=0.25)(band, np.random.default_rng(s)).tempos[0][1] for s in range(60)]
    assert 400_000 <= min(tempos) < 420_000 < 600_000 < max(tempos) <= 625_000
    louder = Augmentation(velocity=30)(band, np.random.default_rng(1)).notes["velocity"].astype(int)
    assert len(np.unique(louder - band.notes["velocity"])) == 1
    left = [set(Augmentation(voice_dropout=0.7)(band, np.random.default_rng(s)).notes["track"]) for s in range(60)]
    assert {frozenset(voices) for voices in left} >= {frozenset({t}) for t in range(3)} | {frozenset({0, 1, 2})}
    assert all(left)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"transpose": 25}, r"transpose: .*\[0, 24\], got 25"), ({"stretch": float("nan")}, "stretch: .*nan"),
     ({"velocity": -1}, "velocity"), ({"voice_dropout": 1.0}, "voice_dropout: .*1.0")],
)  # fmt: skip
def test_augmentation_settings_are_checked(settings, words):
    with pytest.raises(ValueError, match=words):
        Augmentation(**settings)


# -- as tokens -------------------------------------------------------------------------------------------------------


def test_crops_know_what_came_before(rng):
    piece = Piece("x", np.arange(100, dtype=np.int32)[:, None])
    crops = [cut(piece, 30, rng) for _ in range(300)]
    starts = [int(c.tokens[0, 0]) + c.context for c in crops]
    assert min(starts) == 0
    assert max(starts) == 70
    assert all(
        len(c.tokens) == 30 + c.context and c.context == (start > 0) for c, start in zip(crops, starts, strict=True)
    )
    assert starts.count(0) > 30  # a piece's beginning is one of 86 places otherwise
    config = RecurrentConfig.language_model("lstm", vocab_size=100, embedding_size=4, hidden_size=4, num_layers=1)
    batch = Collator(config)(crops[:2])
    for b in range(2):
        target = batch.targets[:, b, 0].tolist()
        assert target == list(range(starts[b], starts[b] + 30))
        assert batch.features["token"][:, b].tolist() == [starts[b] - 1 if starts[b] else 100, *target[:-1]]


@pytest.mark.parametrize(("encoding", "most"), [("bars", 636), ("performance", 389), ("pitches", 129)])
def test_midi_files_as_tokens(folder, rng, encoding, most):
    with pytest.warns(
        MidiWarning, match=r"2 file\(s\) could not be used: empty\.mid: no notes; reels/broken\.mid: too"
    ):
        corpus = midi(folder, encoding=encoding, crop=20, transpose=3)
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) == 10
    assert len(corpus.failures) == 2
    assert corpus.encoding["name"] == encodings.named(encoding).name
    assert all(p.tokens[-1, 0] == most - 1 for p in [*corpus.train, *corpus.valid])  # whole pieces, and their ends
    assert corpus.pieces_per_epoch == len(corpus.epoch(rng)) == sum(round(len(p.tokens) / 20) for p in corpus.train)
    drawn = [corpus.draw(corpus.train[0], rng) for _ in range(40)]
    assert {len(p.tokens) - p.context for p in drawn} == {20}
    assert len({p.tokens.tobytes() for p in drawn}) > 20


def test_midi_says_what_it_cannot_take(folder):
    with pytest.raises(ValueError, match=r"encoding: expected one of .*got 'remi'"):
        midi(folder, encoding="remi")
    with pytest.raises(ValueError, match=r"encoding: expected one with a stream .*'chorale'"):
        midi(folder, encoding="chorale")
    with pytest.raises(ValueError, match=r"crop: .*-1"):
        midi(folder, crop=-1)
    with pytest.raises(ValueError, match=r"expected pieces that 'pitch_sequence' can write.* got 0 and 0: .*got none"):
        midi(folder, encoding="pitches", options={"highest": 10})
