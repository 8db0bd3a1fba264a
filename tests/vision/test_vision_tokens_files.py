"""Files of vision encoders, as their authors nest them."""

import pytest
import timm
import torch

from eqzoo.vision import CLIPTokens, IJEPATokens, MAETokens

IMAGES = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def state(monkeypatch):
    """The weights of a tiny network, which stands in for each of the large ones."""
    create = timm.create_model

    def tiny(name, **options):
        return create('vit_tiny_patch16_224', depth=2, num_classes=0, img_size=32)

    monkeypatch.setattr(timm, 'create_model', tiny)
    for kind in (CLIPTokens, MAETokens, IJEPATokens):
        monkeypatch.setattr(kind, 'timm_name', 'vit_tiny_patch16_224')
    network = tiny('')
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.state_dict()


@pytest.mark.parametrize(
    ('kind', 'nested'),
    [
        (CLIPTokens, lambda state: {**state, 'head.weight': torch.ones(5, 192), 'head.bias': torch.ones(5)}),
        (MAETokens, lambda state: {'model': state}),
        (
            IJEPATokens,
            lambda state: {
                'encoder': {f'module.{name}': value for name, value in state.items()},
                'predictor': {'module.mask_token': torch.ones(1)},
                'epoch': 300,
            },
        ),
    ],
)
def test_a_file_is_read_as_its_authors_wrote_it(kind, nested, state, tmp_path):
    torch.save(state, tmp_path / 'plain.pth')
    torch.save(nested(state), tmp_path / 'nested.pth')
    encoder = kind(tmp_path / 'nested.pth', grid=2)
    torch.testing.assert_close(encoder.network.pos_embed, state['pos_embed'])
    assert torch.equal(encoder(IMAGES), kind(tmp_path / 'plain.pth', grid=2)(IMAGES))
    assert encoder(IMAGES).std(dim=1).mean() > 1e-3


def test_a_file_of_something_else_is_refused(state, tmp_path):
    torch.save({'model': {'pos_embed': state['pos_embed']}}, tmp_path / 'cut.pth')
    with pytest.raises(ValueError, match='cut.pth.* does not fit the network: .* missing: cls_token'):
        MAETokens(tmp_path / 'cut.pth', grid=2)
