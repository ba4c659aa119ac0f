import copy
import random
from collections import deque

import torch
from torch import nn
import torch.nn.functional as F

META = dict(title="DQN on a small grid with replay and a target net copied every twenty-five steps",
            looks_like="loss rises as values grow; target net has no gradient and changes in jumps", family="healthy")
SIZE = 4
MOVES = [(0, 1), (1, 0), (0, -1), (-1, 0)]


def env_step(s, a):
    r, c = divmod(s, SIZE)
    r = min(max(r + MOVES[a][0], 0), SIZE - 1)
    c = min(max(c + MOVES[a][1], 0), SIZE - 1)
    s2 = r * SIZE + c
    return s2, float(s2 == SIZE * SIZE - 1), s2 == SIZE * SIZE - 1


class Agent:
    def __init__(self):
        self.q = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 4))
        self.target = copy.deepcopy(self.q).eval()
        for p in self.target.parameters():
            p.requires_grad = False
        self.opt = torch.optim.Adam(self.q.parameters(), lr=5e-3)
        self.eye = torch.eye(16)
        self.mem = deque(maxlen=4000)

    def act(self, s, eps):
        if random.random() < eps:
            return random.randrange(4)
        with torch.no_grad():
            return self.q(self.eye[s]).argmax().item()

    def learn(self):
        s, a, r, s2, d = map(torch.tensor, zip(*random.sample(self.mem, 64)))
        with torch.no_grad():
            y = r + 0.9 * self.target(self.eye[s2]).max(1)[0] * (~d)
        q = self.q(self.eye[s]).gather(1, a[:, None])[:, 0]
        loss = F.smooth_l1_loss(q, y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()


def train(seed):
    torch.manual_seed(seed)
    random.seed(seed)
    ag = Agent()
    s, losses = 0, []
    for t in range(1600):
        a = ag.act(s, max(0.2, 1 - t / 900))
        s2, r, d = env_step(s, a)
        ag.mem.append((s, a, r, s2, d))
        s = random.randrange(15) if d or t % 30 == 29 else s2
        if t >= 100 and t % 4 == 0:
            losses.append(ag.learn())
            if len(losses) % 25 == 0:
                ag.target.load_state_dict(ag.q.state_dict())
    with torch.no_grad():
        v = ag.q(torch.eye(16))[:15].max(1).values
    want = torch.tensor([0.9 ** (5 - i // 4 - i % 4) for i in range(15)])
    s, steps = 0, 0
    while s != 15 and steps < 20:
        s, _, _ = env_step(s, ag.act(s, 0.0))
        steps += 1
    return {"value_error": (v - want).abs().mean().item(), "steps_to_goal": steps, "loss": losses[-1]}
