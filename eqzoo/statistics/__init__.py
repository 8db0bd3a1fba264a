"""Statistics of sets of features, images and latents: functions of tensors, without networks and data."""
