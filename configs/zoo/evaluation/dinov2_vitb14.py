"""Features of DINOv2 for tracking: not comparable with FDD, which is on ViT-L/14."""

extractor = dict(type='DINOv2', size='b')
