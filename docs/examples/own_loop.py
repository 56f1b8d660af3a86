"""Your own training loop, with three lines added (marked +): it ends with a network of half the operations in one file.

python docs/examples/own_loop.py digits.cosparse
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import cosparse
from cosparse.compress import NNCS, Budget, export

torch.manual_seed(0)
images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
images = ((images.float() - 4.9) / 6.0).reshape(-1, 1, 8, 8)
order = torch.randperm(len(images))
train, test = order[:1400], order[1400:]

convolutions = [nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.Conv2d(64, 64, 3)]
layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, epochs=12, steps_per_epoch=22)
nncs = NNCS(model, Budget(flops=0.5), images[:1], ramp=22 * 4)  # +
for epoch in range(12):
    if epoch == 8:
        nncs.mask(optimizer)  # +
    for chosen in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        nncs.step(optimizer)  # + in the place of optimizer.step()
        schedule.step()

print(nncs.finish())
export(model.eval(), images[:1], sys.argv[1], name="digits")
logits = cosparse.load(sys.argv[1])(images[test].numpy())
print(f"top-1 by the engine: {(logits.argmax(1) == labels[test].numpy()).mean():.2%}")
