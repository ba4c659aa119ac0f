import torch
import torch.nn as nn

META = dict(
    title="Model loaded in eval mode (as from_pretrained returns it) and trained without model.train()",
    source="Hugging Face docs: from_pretrained returns the model in eval mode",
    family="wiring",
    faults=["calls.misordered_calls"],
    where="",
    words=["model in eval mode during training", "model left in eval mode during training", "missing model.train()", "BatchNorm in eval mode while training", "BatchNorm running statistics frozen", "BatchNorm and dropout in eval mode while training"],
    location="load_pretrained() returns model.eval(); the loop never calls model.train(); BatchNorm running statistics stay at the old domain's",
    symptom="running statistics never follow the new input domain (another gain and offset), training is slow and poor",
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn0 = nn.BatchNorm1d(12)
        self.fc1, self.bn1 = nn.Linear(12, 48), nn.BatchNorm1d(48)
        self.drop = nn.Dropout(0.1)
        self.fc2 = nn.Linear(48, 4)

    def forward(self, x):
        return self.fc2(self.drop(torch.tanh(self.bn1(self.fc1(self.bn0(x))))))


def load_pretrained(state):
    m = Net()
    m.load_state_dict(state)
    m.eval()
    return m


def task(protos, n, gain, offset):
    y = torch.randint(0, 4, (n,))
    return (protos[y] + 0.8 * torch.randn(n, 12)) * gain + offset, y


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    protos = torch.randn(4, 12)
    state = Net().state_dict()
    model = load_pretrained(state)
    if fixed:
        model.train()
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    ce = nn.CrossEntropyLoss()
    gain, offset = torch.rand(12) * 0.02 + 0.005, torch.randn(12)
    last = []
    for step in range(300):
        x, y = task(protos, 48, gain, offset)
        loss = ce(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        last.append(loss.item())
    model.eval()
    with torch.no_grad():
        x, y = task(protos, 1000, gain, offset)
        acc = (model(x).argmax(1) == y).float().mean().item()
    return {"train_loss": sum(last[-20:]) / 20, "acc": acc}


def separates(buggy, fixed):
    return fixed["acc"] > 0.9 and buggy["acc"] < fixed["acc"] - 0.15
