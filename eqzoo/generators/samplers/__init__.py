"""From noise to latents: the ways of drawing samples with a trained generator."""
