"""Vision encoders: their tokens, their preparation of images, and files as their authors nest them."""

import pytest
import timm
import torch
from torch.nn import functional as F

from eqzoo.data import Shapes
from eqzoo.registry import build
from eqzoo.vision import CLIPTokens, DINOv2Tokens, EfficientNetLite0, EfficientNetLite0Tokens, IJEPATokens, MAETokens

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture(scope='module')
def images():
    return torch.stack([Shapes(3, 64)[index]['image'] for index in range(3)])


def test_efficientnets_cells_are_tokens_row_by_row(images):
    tokens = EfficientNetLite0Tokens(stride=16)(images)
    cells = EfficientNetLite0().maps(images.float())[3]
    assert tokens.shape == (3, 16, 112)
    torch.testing.assert_close(tokens[:, 6], cells[:, :, 1, 2])


@pytest.mark.parametrize(('stride', 'features'), [(4, 24), (8, 40), (32, 320)])
def test_each_stride_has_its_map(images, stride, features):
    encoder = EfficientNetLite0Tokens(stride=stride)
    assert encoder.num_features == features
    assert encoder(images).shape == (3, (64 // stride) ** 2, features)


def test_efficientnets_images_are_resized_first(images):
    larger = F.interpolate(images.float(), (128, 128), mode='bicubic', antialias=True)
    expected = EfficientNetLite0().maps(larger)[3].flatten(2).transpose(1, 2)
    encoder = EfficientNetLite0Tokens(stride=16, size=128)
    torch.testing.assert_close(encoder(images), expected)
    assert encoder.card()['resize'] == '128 pixels, bicubic, antialiased'
    assert encoder.key == 'effnet_lite0_stride16'


def test_dinov2s_tokens_are_normalised_patches_of_images_prepared_as_repa_does(images):
    encoder = DINOv2Tokens('s', grid=4, weights='random')
    assert (encoder.num_features, encoder.size, encoder.key) == (384, 56, 'random_dinov2_vits14_tokens')
    prepared = F.interpolate((images / 255 - MEAN) / STD, (56, 56), mode='bicubic')
    with torch.no_grad():
        expected = encoder.network.forward_features(prepared)[:, 1:]
    tokens = encoder(images)
    torch.testing.assert_close(tokens, expected)
    assert tokens.shape == (3, 16, 384)
    torch.testing.assert_close(tokens.mean(dim=2), torch.zeros(3, 16), atol=1e-4, rtol=0)  # after the last norm


def test_positions_of_another_grid_are_resampled_as_timm_does(images, tmp_path):
    """Weights of 37 x 37 patches, as Meta's, on 4 x 4."""
    torch.manual_seed(0)
    whole = timm.create_model('vit_small_patch14_dinov2', num_classes=0)
    torch.nn.init.normal_(whole.pos_embed)
    state = {**whole.state_dict(), 'mask_token': torch.zeros(1, 384)}
    torch.save(state, tmp_path / 'meta.pth')
    encoder = DINOv2Tokens('s', grid=4, weights=tmp_path / 'meta.pth')
    expected = timm.layers.resample_abs_pos_embed(whole.pos_embed, (4, 4))
    torch.testing.assert_close(encoder.network.pos_embed, expected)
    assert encoder.key.startswith('dinov2_vits14_tokens_')  # another file than Meta's: by its hash


@pytest.mark.parametrize(
    ('kind', 'features', 'before_norm'), [(CLIPTokens, 1024, True), (MAETokens, 1024, True), (IJEPATokens, 1280, False)]
)
def test_the_others_are_as_large_as_theirs_and_need_a_file(kind, features, before_norm, monkeypatch):
    create = timm.create_model
    small = create('vit_tiny_patch16_224', num_classes=0, img_size=32)
    made = []
    monkeypatch.setattr(timm, 'create_model', lambda name, **options: made.append((name, options)) or small)
    encoder = kind(weights='random', grid=2)
    with torch.device('meta'):
        assert create(made[0][0], num_classes=0).embed_dim == features
    assert made[0][1]['img_size'] == 2 * int(made[0][0].split('patch')[1].split('_')[0])
    assert isinstance(encoder.network.norm, torch.nn.Identity) is before_norm
    (lacking,) = kind.requirements({})
    assert 'set weights=PATH' in lacking.remedy
    with pytest.raises(FileNotFoundError, match='set weights=PATH'):
        kind()


def test_clips_images_are_normalised_as_clip_does():
    assert CLIPTokens.normalization != DINOv2Tokens.normalization
    assert CLIPTokens.normalization[0] == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)


def test_mistakes_are_refused(images):
    with pytest.raises(ValueError, match="DINOv2Tokens.size must be 's', 'b', 'l' or 'g', got 'xl'"):
        DINOv2Tokens('xl')
    with pytest.raises(ValueError, match='DINOv2Tokens.grid must be at least 1, got 0'):
        DINOv2Tokens('s', grid=0, weights='random')
    with pytest.raises(ValueError, match='EfficientNetLite0Tokens.stride must be 4, 8, 16 or 32, got 2'):
        EfficientNetLite0Tokens(2)
    with pytest.raises(ValueError, match='size: got 40; expected a multiple of stride=16'):
        EfficientNetLite0Tokens(16, 40)
    with pytest.raises(TypeError, match='images must be uint8'):
        EfficientNetLite0Tokens()(images.float())


def test_a_large_encoder_shrinks_for_smoke_runs():
    assert build(DINOv2Tokens.smoke({})).num_features == 112


SMALL = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


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
    assert torch.equal(encoder(SMALL), kind(tmp_path / 'plain.pth', grid=2)(SMALL))
    assert encoder(SMALL).std(dim=1).mean() > 1e-3


def test_a_file_of_something_else_is_refused(state, tmp_path):
    torch.save({'model': {'pos_embed': state['pos_embed']}}, tmp_path / 'cut.pth')
    with pytest.raises(ValueError, match='cut.pth.* does not fit the network: .* missing: cls_token'):
        MAETokens(tmp_path / 'cut.pth', grid=2)
