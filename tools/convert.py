"""Convert an autoencoder's file: python tools/convert.py SRC DST --to {diffusers,ldm,comfyui,onnx,eqzoo}."""

from eqzoo.commands.cli import run_tool

if __name__ == '__main__':
    run_tool('convert')
