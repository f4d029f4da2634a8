"""Running class means against loops over every feature that was seen."""

import math

import pytest
import torch

from hypersphere.config import compose, split_config
from hypersphere.heads import DeepNCM, class_means
from hypersphere.training.learner import Learner
from hypersphere.training.network import Network

CLASSES, DIM, EVERY = 4, 3, 3


def head(means, decay=0.75, every=EVERY):
    return DeepNCM(DIM, CLASSES, means=means, decay=decay, every=every)


def batches(number=8, n=6, classes=CLASSES):
    """Of the last class nothing comes before the fifth batch."""
    g = torch.Generator().manual_seed(0)
    for i in range(number):
        among = classes if i > 3 else classes - 1
        yield torch.randn(n, DIM, generator=g) * 2, torch.randint(among, (n,), generator=g)


def fill(head, number=8):
    for z, y in batches(number):
        head.loss(z, y)
    return head


# What the three kinds of means are, class by class and feature by feature


class Online:
    def __init__(self):
        self.total, self.count = [[0.0] * DIM for _ in range(CLASSES)], [0] * CLASSES

    def see(self, z, y):
        for features, label in zip(z, y):
            self.count[label] += 1
            for d in range(DIM):
                self.total[label][d] += features[d]

    def means(self):
        return [[t / max(n, 1) for t in row] for row, n in zip(self.total, self.count)]


class Condensation(Online):
    steps = 0

    def see(self, z, y):
        super().see(z, y)
        self.steps += 1
        if self.steps % EVERY == 0:
            self.total = self.means()
            self.count = [min(n, 1) for n in self.count]


class Decay:
    def __init__(self):
        self.now = [[0.0] * DIM for _ in range(CLASSES)]

    def see(self, z, y):
        for label in set(y):
            rows = [features for features, other in zip(z, y) if other == label]
            mean = [sum(column) / len(rows) for column in zip(*rows)]
            self.now[label] = [0.75 * m + 0.25 * b for m, b in zip(self.now[label], mean)]

    def means(self):
        return self.now


KINDS = {"online": Online, "condensation": Condensation, "decay": Decay}
every_kind = pytest.mark.parametrize("kind", KINDS)


def slow_loss(z, y, means, weights=None):
    total = 0.0
    for features, label in zip(z.tolist(), y.tolist()):
        logits = [-(math.dist(features, m) ** 2) for m in means]
        largest = max(logits)
        log_sum = largest + math.log(sum(math.exp(x - largest) for x in logits))
        total += (log_sum - logits[label]) * (weights[label] if weights else 1.0)
    return total / len(y)


@every_kind
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 4.0]])
def test_losses_and_means_equal_a_loop(kind, weights):
    """Each batch is judged by the means before it; weights move the loss and not the means."""
    ours, slow = head(kind), KINDS[kind]()
    for z, y in batches():
        expected = slow_loss(z, y, slow.means(), weights)
        found = ours.loss(z, y, torch.tensor(weights)[y] if weights else None)
        assert found.item() == pytest.approx(expected, rel=1e-5)
        slow.see(z.tolist(), y.tolist())
        for row, mean in zip(ours.class_vectors.tolist(), slow.means()):
            assert row == pytest.approx(mean, abs=1e-5)


def test_the_kinds_differ():
    vectors = [fill(head(kind)).class_vectors for kind in KINDS]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (vectors[a] - vectors[b]).abs().max() > 0.1


def test_condensed_means_follow_features_that_drift():
    """Features move from -1 to 1: the mean of all is 0, a condensed one is where they are now."""
    z, y = torch.ones(CLASSES, DIM), torch.arange(CLASSES)
    online, condensed = head("online"), head("condensation", every=10)
    for step in range(20):
        for one in (online, condensed):
            one.loss(z if step >= 10 else -z, y)
    assert torch.allclose(online.class_vectors, torch.zeros(CLASSES, DIM), atol=1e-6)
    # one image at -1 and ten at 1
    assert torch.allclose(condensed.class_vectors, torch.full((CLASSES, DIM), 9 / 11))
    assert condensed.counts.tolist() == [1] * CLASSES and online.counts.tolist() == [20] * CLASSES


def test_online_means_stay_exact_after_many_images():
    """A float32 sum of a million features would be off in its third digit."""
    one = head("online")
    one.counts = torch.full_like(one.counts, 2**24)
    one.class_vectors = torch.full_like(one.class_vectors, 0.1)
    for _ in range(50):
        one.loss(torch.full((CLASSES, DIM), 0.1), torch.arange(CLASSES))
    assert torch.equal(one.class_vectors, torch.full((CLASSES, DIM), 0.1))
    assert one.counts.tolist() == [2**24 + 50] * CLASSES


@every_kind
def test_no_gradient_passes_through_the_means(kind):
    one = fill(head(kind), 5)
    z, y = next(batches())
    z.requires_grad_()
    p = one.logits(z).softmax(1).detach()
    means = one.class_vectors.clone()
    one.loss(z, y).backward()
    pull = p - torch.eye(CLASSES)[y]  # of -2 (z - m_k), summed over k
    expected = (pull[:, :, None] * -2 * (z.detach()[:, None] - means)).sum(1) / len(y)
    assert torch.allclose(z.grad, expected, atol=1e-6)
    assert not one.class_vectors.requires_grad and not list(one.parameters())


@every_kind
def test_means_move_in_training_alone(kind):
    one = fill(head(kind), 5)
    z, y = next(batches())
    before = {name: value.clone() for name, value in one.state_dict().items()}
    one.eval().loss(z, y)
    one.train().logits(z)
    after = one.state_dict()
    assert before.keys() == {"class_vectors", "counts", "step"}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_scores_and_new_classes():
    one = fill(head("online"))
    z, y = next(batches())
    classes = torch.tensor([2, 0])
    trained = one.trained(z, y, torch.arange(CLASSES), True)
    assert torch.equal(trained, one.class_vectors) and trained is not one.class_vectors
    assert torch.equal(one.scores(z, trained), one.logits(z))
    for renormalize in (True, False):  # points of a Euclidean space are of any length
        assert torch.equal(one.infer(z, y, classes, renormalize), class_means(z, y, classes))
    assert one.classifies and one.targets is None


# Through the configuration


@every_kind
def test_it_learns_and_its_means_are_saved(kind):
    words = ["paper=hpn/quick", "head=deep_ncm", f"head.means={kind}", "head.every=30"]
    chosen, _ = split_config(compose(words))
    module = Learner(chosen)
    module.class_weights = torch.linspace(0.5, 1.5, 10)
    optimizer = module.optimizers()[0]
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 10
    images = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=g)
    for _ in range(60):
        optimizer.zero_grad()
        loss = module.loss(images, labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.9 * math.log(10)  # of means that are all at the origin
    other = Network(chosen)
    other.load_state_dict(module.network.state_dict())
    assert torch.equal(other.head.class_vectors, module.network.head.class_vectors)
    assert other.head.step == 60
