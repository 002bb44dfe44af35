"""A small network with norms, and a training loop whose data follow from the chunk's number."""

import torch
from torch import nn

SAMPLES = 48


def small_net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8, 4),
        )  # fmt: skip


def data():
    """Four classes: the quarter of the image that is bright."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(SAMPLES) % 4
    images = torch.randn(SAMPLES, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[:, row : row + 4, column : column + 4] += 1.5
    return images, labels


class Loop:
    """Trains an epoch a chunk, in an order that depends on the chunk within its level only."""

    def __init__(self, net, optimizer, schedule=None):
        self.net, self.optimizer, self.schedule = net, optimizer, schedule
        self.images, self.labels = data()
        self.chunks = []

    def __call__(self, chunk):
        self.chunks.append(chunk)
        self.net.train()
        torch.manual_seed(1000 * chunk.warm_up + chunk.number)
        for index in torch.randperm(SAMPLES).split(16):
            self.optimizer.zero_grad()
            self.loss(self.net, (self.images[index], self.labels[index])).backward()
            self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()

    @staticmethod
    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def accuracy(self):
        self.net.eval()
        with torch.no_grad():
            right = self.net(self.images).argmax(dim=1) == self.labels
        self.net.train()
        return float(right.double().mean())


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def state_of(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
