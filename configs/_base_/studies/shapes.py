"""The built-in Shapes at 32 pixels: what studies of the small size train and measure on."""

training_images = dict(type='Shapes', num_images=4000, size=32, seed=0)
# small batches: a short run gains from more steps, not from more images
train_dataloader = dict(batch_size=8, num_workers=0, dataset=training_images)
test_dataloader = dict(batch_size=64, num_workers=0, dataset=dict(type='Shapes', num_images=256, size=32, seed=2))
images_to_watch = dict(type='Shapes', num_images=256, size=32, seed=2)
cache_dataloader = dict(batch_size=64, num_workers=0, dataset=training_images)
latents = dict(batch_size=64, num_workers=0, dataset=dict(type='LatentStore', root='work_dirs/latents/studies_shapes'))
