import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="A folder read class by class and a loader without shuffle: each batch holds one class",
    faults=["batches.sorted_labels"],
    where="classes_one_after_another.py",
    style="DataLoader, CrossEntropyLoss object",
)


def read_folder(classes=6, each=100):
    centres = torch.randn(classes, 20)
    images = [centres[c] + torch.randn(each, 20) for c in range(classes)]
    labels = [torch.full((each,), c) for c in range(classes)]
    return torch.cat(images), torch.cat(labels)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    dataset = TensorDataset(*read_folder())
    loader = DataLoader(dataset, batch_size=20, shuffle=fixed)
    model = nn.Sequential(nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 6))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(10):
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
    return {"loss": loss.item()}
