import torch
from torch import nn

META = dict(title="WGAN with weights of the critic clamped after each step",
            looks_like="negative losses, weights sit at the clamp bound, five critic steps per generator step", family="healthy")


def net(i, o):
    return nn.Sequential(nn.Linear(i, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, o))


def train(seed):
    torch.manual_seed(seed)
    G, C = net(2, 1), net(1, 1)
    og = torch.optim.RMSprop(G.parameters(), lr=2e-3)
    oc = torch.optim.RMSprop(C.parameters(), lr=1e-3)

    def real(n):
        return 2.0 + 0.5 * torch.randn(n, 1)

    before = (G(torch.randn(1000, 2)).mean() - 2).abs().item()
    for it in range(80):
        for _ in range(4):
            loss_c = C(G(torch.randn(64, 2)).detach()).mean() - C(real(64)).mean()
            oc.zero_grad()
            loss_c.backward()
            oc.step()
            with torch.no_grad():
                for p in C.parameters():
                    p.clamp_(-0.1, 0.1)
        loss_g = -C(G(torch.randn(64, 2))).mean()
        og.zero_grad()
        loss_g.backward()
        og.step()
    s = G(torch.randn(1000, 2))
    return {"mean_gap_before": before, "mean_gap": (s.mean() - 2).abs().item(), "critic": loss_c.item()}
