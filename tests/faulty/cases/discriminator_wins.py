import torch
from torch import nn

META = dict(
    title="The generator's learning rate lost two zeros: the discriminator wins at once",
    faults=["losses.discriminator_won"],
    where="discriminator_wins.py",
    style="GAN with BCEWithLogitsLoss, two optimizers",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    discriminator = nn.Sequential(
        nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
    )
    opt_g = torch.optim.Adam(generator.parameters(), lr=1e-3 if fixed else 1e-5, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4 if fixed else 5e-3, betas=(0.5, 0.999))
    bce = nn.BCEWithLogitsLoss()
    ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)
    for _ in range(250):
        angle = torch.rand(64, 1) * 6.28
        real = torch.cat([4 + 2 * angle.cos(), 2 * angle.sin()], 1) + 0.05 * torch.randn(64, 2)
        fake = generator(torch.randn(64, 4))
        loss_d = bce(discriminator(real), ones) + bce(discriminator(fake.detach()), zeros)
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        loss_g = bce(discriminator(fake), ones)
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
    return {"loss_d": loss_d.item(), "loss_g": loss_g.item()}
