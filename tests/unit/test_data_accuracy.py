"""Accuracy: Wilson's interval, counts that add up over batches and ranks, networks left as they were."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor, nn

from finet_deploy.data import Counts, count_correct, evaluate_model
from finet_deploy.data.accuracy import count_scores, wilson
from finet_deploy.data.dataset import Batch
from finet_deploy.errors import FinetDeployError, UsageError


@st.composite
def shares(draw):
    images = draw(st.integers(1, 100_000))
    return draw(st.integers(0, images)), images


@given(shares())
def test_the_interval_is_scipys_and_holds_the_share(share):
    found, expected = wilson(*share), binomtest(*share).proportion_ci(0.95, method="wilson")
    assert found.value == share[0] / share[1]
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(shares())
def test_the_interval_mirrors_when_right_and_wrong_are_swapped_and_narrows_with_more_images(share):
    correct, images = share
    found, other = wilson(correct, images), wilson(images - correct, images)
    assert (found.low, found.high) == pytest.approx((1 - other.high, 1 - other.low), abs=1e-12)
    more = wilson(4 * correct, 4 * images)
    assert more.high - more.low < found.high - found.low


def test_perfect_and_empty_scores_have_intervals_too():
    assert (wilson(359, 359).high, wilson(0, 359).low) == (1, 0)
    assert wilson(359, 359).low == pytest.approx(0.98941, abs=1e-5)
    for correct, images in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(UsageError):
            wilson(correct, images)


def scores_and_labels(seed: int, images: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(images, classes, generator=generator),
        torch.randint(0, classes, (images,), generator=generator),
    )


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(6, 20), st.integers(1, 7))
@settings(max_examples=50)
def test_counts_are_those_of_a_sort_and_add_up_over_any_cut(seed, images, classes, part):
    scores, labels = scores_and_labels(seed, images, classes)
    order = scores.argsort(1, descending=True)
    whole = count_scores(scores, labels)
    assert whole.correct1 == sum(int(row[0] == label) for row, label in zip(order, labels))
    assert whole.correct5 == sum(int(label in row[:5]) for row, label in zip(order, labels))
    cut = [count_scores(a, b) for a, b in zip(scores.split(part), labels.split(part))]
    assert sum(cut, Counts()) == whole
    reduced = sum(counts.to_tensor() for counts in [*cut, Counts()])  # a rank without images among them
    assert Counts.from_tensor(reduced) == whole


def test_there_is_no_top5_with_five_classes_and_one_with_six():
    assert count_scores(*scores_and_labels(0, 8, 5)).accuracy().top5 is None
    assert count_scores(*scores_and_labels(0, 8, 6)).accuracy().top5 is not None


def test_a_network_that_says_the_same_of_every_class_is_not_right():
    counts = count_scores(torch.zeros(100, 10), torch.arange(100) % 10)
    assert counts.correct1 == 10
    assert counts.correct5 < 100


def test_scores_that_are_not_finite_are_wrong_and_told():
    scores, labels = scores_and_labels(0, 6, 6)
    scores[torch.arange(6), labels] = 100
    assert count_scores(scores, labels).correct1 == 6
    scores[0], scores[1, 0] = float("nan"), float("inf")
    found = count_scores(scores, labels)
    assert (found.correct1, found.correct5, found.images, found.not_finite) == (4, 4, 6, 2)
    assert found.accuracy().not_finite == 2


def test_a_label_without_score_and_an_empty_evaluation_are_errors():
    with pytest.raises(FinetDeployError, match="label 6 in the data, but the network tells 6 classes apart"):
        count_scores(torch.zeros(2, 6), torch.tensor([0, 6]))
    with pytest.raises(FinetDeployError, match=r"no image was evaluated \(3 were skipped\)"):
        Counts(skipped=3).accuracy()


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.dropout, self.fc = nn.Dropout(0.5), nn.Linear(3, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.frozen(self.norm(x))).mean((2, 3)))


def test_evaluation_is_in_eval_mode_and_puts_every_modules_mode_back():
    torch.manual_seed(0)
    model = Head().train()
    model.frozen.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, labels = torch.randn(12, 3, 4, 4), torch.arange(12) % 7
    batches = [Batch(images[:5], labels[:5], ("a.png",)), Batch(images[5:], labels[5:])]
    empty = Batch(torch.empty(0, 3, 4, 4), torch.empty(0, dtype=torch.int64), ("b.png",))
    found = count_correct(model, [*batches, empty], "cpu")
    assert (found.images, found.skipped) == (12, 2)
    assert (model.training, model.norm.training, model.frozen.training) == (True, True, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    expected = count_scores(model.eval()(images), labels)
    assert (found.correct1, found.correct5) == (expected.correct1, expected.correct5)
    assert evaluate_model(model.train(), batches, "cpu").correct == found.correct1


def test_the_modes_come_back_after_an_error_too():
    model = Head().train()
    with pytest.raises(FinetDeployError):
        count_correct(model, [Batch(torch.randn(2, 3, 4, 4), torch.tensor([0, 7]))], "cpu")
    assert model.norm.training
