import numpy as np
import pytest

from fertool.data.ferplus import RULES, label_by_votes, mix_votes
from fertool.data.labels import FERPLUS_ORDER
from fertool.data.reader import RawSplit


def label(votes, rule):
    votes = np.array(votes, np.uint8)
    n = len(votes)
    faces = RawSplit(
        np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), np.zeros(n, np.int64), ("angry",), votes
    )
    return label_by_votes(faces, rule)


def leading_one_by_one(votes):
    """The cross-entropy rule for one face, as a search by hand; None for a face that it drops."""
    left = [float(v) if v > 1 else 0.0 for v in votes]
    total, taken, held, count = sum(left), [0.0] * 10, 0.0, 0
    while held < 0.75 * total and count < 3:
        top = max(left)
        emotions = [i for i in range(8) if left[i] == top]
        others = [i for i in (8, 9) if left[i] == top]
        for i in emotions:
            taken[i], left[i], held, count = top, 0.0, held + top, count + 1
        if others:
            if sum(taken) == 0:
                taken[others[0]] = top
            break
    if sum(taken) <= 0.5 * total or count > 3 or max(taken) in taken[8:]:
        return None
    return [v / sum(taken[:8]) for v in taken[:8]]


def test_majority_needs_more_than_half_once_single_votes_are_gone():
    votes = [
        [6, 1, 1, 1, 1, 0, 0, 0, 0, 0],  # 6 of 6 are left
        [0, 5, 5, 0, 0, 0, 0, 0, 0, 0],  # exactly half
        [0, 0, 0, 5, 0, 1, 0, 2, 2, 0],  # 5 of 9
        [0, 0, 0, 0, 0, 0, 0, 0, 6, 4],  # unknown wins
        [0, 0, 0, 0, 3, 0, 0, 0, 0, 7],  # not a face
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],  # nothing is left
    ]
    result = label(votes, "majority")
    assert result.images.ravel().tolist() == [0, 2]
    assert [result.classes[k] for k in result.labels] == ["neutral", "sad"]
    assert result.soft_labels is None


def test_soft_labels_are_the_votes_without_single_ones():
    result = label(
        [
            [4, 0, 0, 1, 3, 2, 0, 0, 0, 0],
            [0, 4, 4, 0, 0, 0, 0, 0, 2, 0],
            [2, 0, 0, 0, 0, 0, 0, 0, 4, 4],
        ],
        "soft",
    )
    assert result.images.ravel().tolist() == [0, 1]
    np.testing.assert_allclose(
        result.soft_labels[0], np.array([4, 0, 0, 0, 3, 2, 0, 0]) / 9, rtol=1e-6
    )
    np.testing.assert_allclose(result.soft_labels[1], [0, 0.5, 0.5, 0, 0, 0, 0, 0], rtol=1e-6)


def test_cross_entropy_keeps_the_leading_expressions():
    result = label(
        [[5, 3, 2, 0, 0, 0, 0, 0, 0, 0], [2, 2, 2, 2, 2, 0, 0, 0, 0, 0]], "cross-entropy"
    )
    # 5 + 3 are 80 %, so the third is left out; five equals are too many.
    assert result.images.ravel().tolist() == [0]
    np.testing.assert_allclose(result.soft_labels[0], [5 / 8, 3 / 8, 0, 0, 0, 0, 0, 0], rtol=1e-6)


def test_cross_entropy_agrees_with_a_search_by_hand():
    rng = np.random.default_rng(0)
    # Few sharp and many flat distributions, so that ties, unknown and not-a-face all lead
    # somewhere.
    votes = np.stack(
        [rng.multinomial(10, rng.dirichlet([rng.choice([0.1, 0.5, 2.0])] * 10)) for _ in range(200)]
    )
    expected = [leading_one_by_one(row) for row in votes]
    kept = [i for i, row in enumerate(expected) if row is not None]
    result = label(votes, "cross-entropy")
    assert 20 < len(kept) < 180
    assert result.images.ravel().tolist() == kept
    np.testing.assert_allclose(result.soft_labels, [expected[i] for i in kept], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_names_the_eight_expressions(rule):
    result = label(np.eye(10, dtype=np.uint8) * 10, rule)
    assert result.classes == FERPLUS_ORDER
    assert result.labels.tolist() == list(range(8))


def test_votes_are_mixed_with_the_labels_by_the_names_of_the_classes():
    votes = np.array(
        [
            [4, 0, 0, 0, 4, 0, 0, 1, 0, 0],  # neutral and angry, a single vote of contempt
            [0, 0, 0, 2, 0, 0, 0, 6, 0, 0],  # contempt has no class here: sad remains
            [0, 0, 0, 0, 0, 0, 0, 9, 0, 0],  # nothing remains
            [0, 2, 0, 0, 0, 0, 0, 0, 7, 0],  # unknown wins
        ],
        np.uint8,
    )
    classes = ("angry", "sad", "calm")
    faces = RawSplit(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 0, 1, 2]), classes, votes)
    class_of = {"neutral": "calm", "angry": "angry", "sad": "sad"}
    mixed = mix_votes(faces, class_of, 0.5)
    assert mixed.labels.tolist() == [0, 0, 1, 2]
    expected = [[0.75, 0, 0.25], [0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(mixed.soft_labels, expected, rtol=1e-6)
