"""Plain words for metrics, symbols and names of arms, as reports, the laboratory and pages of studies explain them."""

import re
from collections.abc import Iterable

_METRICS = {
    'psnr': 'how close reconstructions are to their images, in dB: 3 dB more is half the squared error',
    'ssim': 'how close reconstructions are to their images by local structure; 1 is the image itself',
    'lpips': 'perceptual distance of reconstructions from their images; 0 is the image itself',
    'eq_err': 'equivariance error: how far the transformed latent is from the latent of the transformed image; '
    '0 is perfect, 1 is as bad as predicting the mean',
    'eq_err_paper': 'equivariance error as EQ-VAE defines it; a constant added to the latents lowers it',
    'eq_rec': 'how close decoded transformed latents are to the transformed images, in dB; at most about psnr',
    'eq_rec_err': 'squared distance of decoded transformed latents from the transformed images, relative to the '
    'variance of these images',
    'latent_std': 'standard deviation of the latents in generator units; generators expect about 1',
    'latent_kurtosis': 'excess kurtosis of the latents; 0 is that of normally distributed values',
    'spectrum/slope': 'how fast the power of latents falls with frequency: 0 is noise, lower is smoother',
    'spectrum/high_share': 'share of the power of latents at high frequencies; 0.75 is noise',
    'spectrum/checkerboard': 'power of latents at the finest frequency, the checkerboard; 1 is noise',
    'sec': 'spectral energy: share of the power of latents above a part of the highest frequency, such as a quarter',
    'viv': 'velocity variance: how ambiguous the direction from noise to a latent is, an error of a generator that no '
    'training removes; compare only latents of one shape',
    'viv_share': 'share of the variance of latents that images of one class do not have in common',
    'lnc': 'share of the images with the most similar latents that are of the same class',
    'lds': 'by how much cells beside each other are more similar than cells far apart; 0 is noise',
    'cds': 'by how much the similarity of cells falls with their distance; 0 is noise',
    'effective_rank': 'number of latent channels that vary independently',
    'condition_number': 'largest over smallest variance among directions of the latent channels',
    'intrinsic_dimension': 'intrinsic dimension of the latents, estimated from distances of nearest neighbours',
    'codebook/usage': 'share of the codes that occur',
    'codebook/perplexity': 'number of codes that would be equally uncertain if all were equally frequent',
    'fid': 'Fréchet distance between Inception features of two sets of images',
    'rfid': 'FID between reconstructions and images',
    'sfid': 'FID on spatial features',
    'fd': 'Fréchet distance between features of two sets of images; it ranks models, and is not comparable with FID',
    'rfd': 'Fréchet distance between features of reconstructions and of images; not comparable with FID',
    'fdd': 'Fréchet distance on features of DINOv2',
    'ifid': 'FID of images decoded between neighbouring latents',
    'ifd': 'Fréchet distance of images decoded between neighbouring latents; not comparable with FID',
    'latent_fd': 'Fréchet distance of generated latents from latents of images',
    'is': 'Inception score',
    'kid': 'kernel distance between features of two sets of images; comparable with published values on Inception only',
    'precision': 'share of samples that lie near real images',
    'recall': 'share of real images that lie near samples',
    'density': 'how many real images have a sample in their neighbourhood, on average',
    'coverage': 'share of real images with a sample nearby',
    'swd': 'sliced Wasserstein distance of patches: differences in colours and textures',
}
SYMBOLS = {
    'x': 'an image',
    'E(x)': 'its latent: what the encoder E makes of the image',
    'D(E(x))': 'its reconstruction: what the decoder D makes of the latent',
    'τ': 'a transform, such as a rotation by 90° or a reduction to half the size',
    'τx': 'the transformed image',
    'D(τE(x))': 'the transformed latent, decoded; for an equivariant autoencoder it shows the same as τx',
    'PCA colours': 'the first three principal components of a latent shown as red, green and blue: cells of one colour '
    'have similar latents',
}
_ARMS = {
    'tiny': 'a small autoencoder without a posterior, in the manner of TAESD',
    'KL': "an autoencoder as Stable Diffusion's: a posterior with a mean and a spread, and a Kullback-Leibler penalty",
    'VQ': 'an autoencoder whose latent cells are codes from a codebook',
    'plain': 'the control: the same fine-tuning without equivariance',
    'EQ': 'fine-tuned by EQ-VAE, so that decoded transformed latents look like transformed images',
    'from scratch': 'trained with equivariance from the first step on, not fine-tuned',
    'DiT': 'a diffusion transformer, a generator of latents',
    'SiT': "a transformer with DiT's network, trained by interpolation between latents and noise",
    'REPA': 'SiT whose features are also aligned with those of a vision network',
    'MaskGIT': 'a generator that fills in masked codes of a VQ autoencoder',
}


def meaning(metric: str) -> str:
    """Return what a metric measures, in plain words, or '' if that is not known.

    A name may continue after `_`, `/`, `@` or `#`, as in `better`.

    Example:
        >>> meaning('precision_effnet_lite0'), meaning('kid_std'), meaning('mine')
        ('share of samples that lie near real images', 'spread or standard error of kid', '')
    """
    name, against, _ = metric.split('#')[0].partition('/reconstructions')
    if name.endswith('_std') and name not in _METRICS:
        return f'spread or standard error of {name.removesuffix("_std")}'
    words = name.split('/')[0].split('@')[0].split('_')
    known = next((each for each in (name, *_beginnings(words)) if each in _METRICS), None)
    if known is None:
        return ''
    return _METRICS[known] + ('; of samples to reconstructions instead of images' if against else '')


def _beginnings(words: list[str]) -> list[str]:
    return ['_'.join(words[:count]) for count in range(len(words), 0, -1)]


def arm_meanings(names: Iterable[str]) -> dict[str, str]:
    """Return the terms that occur in names of arms, with their meanings.

    Example:
        >>> [*arm_meanings(['tiny', 'tiny + EQ', 'half turns'])]
        ['tiny', 'EQ']
    """
    text = '\n'.join(names)
    return {term: words for term, words in _ARMS.items() if re.search(rf'\b{term}\b', text)}
