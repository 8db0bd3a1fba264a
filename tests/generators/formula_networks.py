"""Networks and inputs with numbers from formulas, the same in every version of torch."""

import torch
from torch import Tensor, nn

LATENTS = dict(latent_channels=4, latent_size=8, num_classes=10)
LABELS = torch.tensor([0, 3, 10])


def wave(*shape: int, step: float = 0.7) -> Tensor:
    """Return cos(step * n) for n = 0, 1, 2, …, float32, of the given shape."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float64) * step).cos().view(shape).float()


def fill(network: nn.Module) -> nn.Module:
    """Set every weight but `pos_embed` to values determined by place and by the name's alphabetical rank."""
    for rank, (name, weight) in enumerate(sorted(network.named_parameters())):
        if name != 'pos_embed':
            scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.3
            weight.data = scale * wave(*weight.shape, step=0.7 + 0.013 * rank)
    return network.eval()
